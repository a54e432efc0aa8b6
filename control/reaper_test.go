package control

import (
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"ecs/control/state"
	"ecs/internal/task"
	ecsv1 "ecs/proto/ecs/v1"
)

// record applies commands that a leader with the given clock proposed.
type record struct {
	*testing.T
	store *state.Store
	index uint64
}

func (r *record) apply(now time.Time, c state.Command) state.Outcome {
	r.Helper()
	entry, err := proto.Marshal(&ecsv1.Entry{Commands: []*ecsv1.Command{state.ToWire(c, now)}})
	if err != nil {
		r.Fatal(err)
	}
	r.index++
	out, err := r.store.Apply(r.index, entry)
	if err != nil || out[0].Err != nil {
		r.Fatalf("%T: %v, %v", c, err, out)
	}
	return out[0]
}

// A leader whose clock is an hour ahead of the next one's leaves a task that backs
// off for four seconds: by the next one's clock that would be an hour.
func TestAPauseIsNoLongerUnderALeaderWithAnotherClock(t *testing.T) {
	r := &record{T: t, store: state.NewStore(state.Limits{})}
	now := time.Now()
	ahead := now.Add(time.Hour)
	n := r.apply(ahead, state.Register{Node: task.Node{ID: "n1", Name: "n1", Zone: "a", Capacity: task.Capacity{MilliCPU: 4000, Memory: 4 << 30}}}).Node
	spec := task.Spec{Image: "busybox:1", ProgramRetries: 3, RetryBackoff: 4 * time.Second}.WithDefaults(task.V2, false)
	r.apply(ahead, state.Submit{Task: &task.Task{ID: "t1", Owner: "ann", Spec: spec}, Node: "n1", Epoch: n.Epoch})
	r.apply(ahead, state.Finish{Token: task.Token{Task: "t1", Attempt: 1, Epoch: n.Epoch}, Node: "n1",
		Result: task.Result{Outcome: task.Exited, ExitCode: 3, HasExit: true}})
	sn := r.store.Snapshot()
	pauses := backingOff(sn, now)
	if len(pauses) != 1 || pauses[0].over.Before(now.Add(4*time.Second)) || pauses[0].over.After(now.Add(6*time.Second)) {
		t.Fatalf("got %+v, want one of 4 s and up to half more", pauses)
	}
	if over, rest := elapsed(sn, pauses, now.Add(3*time.Second)); len(over) != 0 || len(rest) != 1 {
		t.Errorf("got %v and %v before its end", over, rest)
	}
	over, rest := elapsed(sn, pauses, now.Add(6*time.Second))
	if want := []state.Waited{{Task: "t1", Attempt: 1}}; !reflect.DeepEqual(over, want) || len(rest) != 0 {
		t.Fatalf("got %v and %v after it, want %v", over, rest, want)
	}
	if out := r.apply(now.Add(6*time.Second), state.Resume{Waited: over}); len(out.Ended) != 1 {
		t.Errorf("got %v, want it back in the queue", out.Ended)
	}
	if over, rest := elapsed(r.store.Snapshot(), pauses, now.Add(7*time.Second)); len(over) != 0 || len(rest) != 0 {
		t.Errorf("got %v and %v once it is back, want nothing", over, rest)
	}
}
