package control

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"ecs/control/place"
	"ecs/control/state"
	"ecs/internal/task"
	ecsv1 "ecs/proto/ecs/v1"
)

func TestTasksThatMayRunOnALostWordWaitForTheirLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := state.NewStore(state.Limits{})
		index := uint64(0)
		do := func(commands ...state.Command) {
			entry := &ecsv1.Entry{}
			for _, c := range commands {
				entry.Commands = append(entry.Commands, state.ToWire(c, time.Now()))
			}
			data, err := proto.Marshal(entry)
			if err == nil {
				index++
				_, err = store.Apply(index, data)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		submit := func(id task.ID, lease time.Duration) state.Command {
			return state.Submit{Task: &task.Task{ID: id, Owner: "o", Spec: task.Spec{Image: "i", Lease: lease}}}
		}
		once := submit("once", 30*time.Second).(state.Submit)
		once.Task.Spec.Delivery = task.AtMostOnce
		do(submit("short", task.DefaultLease), once, submit("long", time.Minute))
		index = 1000
		store.Recovered(index, "r")
		do(state.Register{Node: task.Node{ID: "n1", Zone: "a", Status: task.Ready, Capacity: task.Capacity{MilliCPU: 64000, Memory: 1 << 36}}})
		do(submit("new", time.Minute))

		u := &uncertain{store: store, began: time.Now()}
		planner := place.NewPlanner(store.Snapshot(), place.Hints{})
		planner.Hold(u.waits)
		placed := func() (names []string) {
			u.look()
			for _, d := range planner.Place(0) {
				names = append(names, string(d.Task))
			}
			return names
		}
		want := func(next time.Duration, names ...string) {
			t.Helper()
			if got := placed(); strings.Join(got, " ") != strings.Join(names, " ") {
				t.Errorf("after %s: got %v placed, want %v", time.Since(u.began), got, names)
			}
			if next == 0 != u.next.IsZero() || next > 0 && u.next.Sub(u.began) != next {
				t.Errorf("after %s: got the next at %s, want it %s after the beginning", time.Since(u.began), u.next, next)
			}
		}
		want(task.DefaultLease+task.LeaseMargin, "new")
		time.Sleep(task.DefaultLease + task.LeaseMargin)
		want(30*time.Second+task.LeaseMargin, "short")
		if because := u.explain(store.Snapshot(), store.Snapshot().Task("once")); !strings.Contains(because, "node_lost") {
			t.Errorf("got %q, want what becomes of it", because)
		}
		if because := u.explain(store.Snapshot(), store.Snapshot().Task("long")); !strings.Contains(because, "recovered") {
			t.Errorf("got %q, want why it waits", because)
		}
		time.Sleep(time.Minute - task.DefaultLease)
		want(0, "long")
		if len(u.lost) != 1 || u.lost[0] != "once" {
			t.Errorf("got %v lost, want the one that may not run twice", u.lost)
		}
		if because := u.explain(store.Snapshot(), store.Snapshot().Task("long")); because != "" {
			t.Errorf("got %q, want nothing to hold it back", because)
		}
	})
}
