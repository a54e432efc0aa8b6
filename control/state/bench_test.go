package state_test

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"

	"ecs/control/state"
	"ecs/internal/task"
)

// crowd fills a store with finished tasks on 100 nodes.
func crowd(b *testing.B, tasks int) *world {
	b.Helper()
	w := newWorld(b)
	for i := range 100 {
		n := aNode(task.NodeID(fmt.Sprintf("node%03d", i)))
		n.Capacity = task.Capacity{MilliCPU: 1 << 40, Memory: 1 << 60}
		w.must(state.Register{Node: n})
	}
	for i := 0; i < tasks; i += 500 {
		var submits, finishes []state.Command
		var place state.Place
		for j := range min(500, tasks-i) {
			id := taskID(i + j)
			n := w.node(task.NodeID(fmt.Sprintf("node%03d", j%100)))
			submits = append(submits, state.Submit{Task: aTask(id, keyed(string(id)))})
			place.Decisions = append(place.Decisions, state.Decision{Task: id, Attempt: 1, Node: n.ID, Epoch: n.Epoch})
			finishes = append(finishes, state.Finish{Token: task.Token{Task: id, Attempt: 1, Epoch: n.Epoch},
				Result: task.Result{Outcome: task.Exited, HasExit: true, ImageDigest: "sha256:" + string(make([]byte, 64)),
					Stdout: task.Stream{Head: make([]byte, 200), Bytes: 200, Kept: 200, SHA256: [32]byte{1}}}})
		}
		w.all(submits...)
		w.must(place)
		w.all(finishes...)
		w.log = nil // not needed here
	}
	return w
}

func taskID(i int) task.ID { return task.ID(fmt.Sprintf("01jdz%021d", i)) }

// One task's life is four commands: submit, place, progress, finish.
func BenchmarkApply(b *testing.B) {
	for _, batch := range []int{1, 100} {
		b.Run(fmt.Sprintf("100000 tasks, %d a batch", batch), func(b *testing.B) {
			w := crowd(b, 100_000)
			n := w.node("node042")
			var entries [][]byte
			for i := 0; i < b.N; i += batch {
				entries = append(entries, lives(b, w.now, n, 100_000+i, batch)...)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for _, e := range entries {
				w.index++
				if _, err := w.store.Apply(w.index, e); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(4*b.N), "ns/command")
		})
	}
}

// lives gives the four entries of some tasks.
func lives(b *testing.B, now time.Time, n *task.Node, first, count int) [][]byte {
	steps := make([][]state.Command, 4)
	for i := range count {
		id := taskID(first + i)
		tok := task.Token{Task: id, Attempt: 1, Epoch: n.Epoch}
		steps[0] = append(steps[0], state.Submit{Task: aTask(id, keyed(string(id)))})
		steps[1] = append(steps[1], state.Place{Decisions: []state.Decision{{Task: id, Attempt: 1, Node: n.ID, Epoch: n.Epoch}}})
		steps[2] = append(steps[2], state.Progress{Token: tok, StartedAt: now})
		steps[3] = append(steps[3], state.Finish{Token: tok, Result: task.Result{Outcome: task.Exited}})
	}
	var out [][]byte
	for _, s := range steps {
		out = append(out, entry(b, now, s...))
	}
	return out
}

// A change wakes those who watch it, not the thousands who watch others.
func BenchmarkApplyWithWatchers(b *testing.B) {
	w := crowd(b, 100_000)
	for i := range 10_000 {
		w.sn().WatchTask(taskID(i))
	}
	n := w.node("node042")
	var entries [][]byte
	for i := range b.N {
		entries = append(entries, lives(b, w.now, n, 100_000+i, 1)...)
	}
	b.ResetTimer()
	for _, e := range entries {
		w.index++
		if _, err := w.store.Apply(w.index, e); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSnapshot(b *testing.B) {
	w := crowd(b, 100_000)
	image := written(b, w.sn())
	b.Run("write 100000 tasks", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			if err := w.sn().Write(io.Discard); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("restore 100000 tasks", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			if err := state.NewStore(state.Limits{}).Restore(bytes.NewReader(image)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// What a finished task with 200 bytes of output costs in memory.
func BenchmarkMemory(b *testing.B) {
	for range b.N {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		w := crowd(b, 100_000)
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/100_000, "B/task")
		runtime.KeepAlive(w)
	}
}
