package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"ecs/control/state"
	"ecs/proto/api"
	"ecs/test/chaos/check"
)

const (
	sampled      = 40 // tasks that are looked at once more
	equalWithin  = 30 * time.Second
	outputWithin = 20 * time.Second
)

// afterwards asks every control node once more for what a client may want long
// after the faults: the output of tasks, the answer to a key, and the whole record.
func (r *trial) afterwards(ctx context.Context, h *check.History, w *workload) error {
	rng := rand.New(rand.NewPCG(r.seed, 2000))
	var ended []check.Record
	for _, t := range h.Finals[r.c.nodes[0].name] {
		if _, known := w.asked[t.Key]; known {
			ended = append(ended, t)
		}
	}
	slices.SortFunc(ended, func(a, b check.Record) int { return bytes.Compare([]byte(a.ID), []byte(b.ID)) })
	rng.Shuffle(len(ended), func(i, j int) { ended[i], ended[j] = ended[j], ended[i] })
	ended = ended[:min(sampled, len(ended))]
	for _, t := range ended {
		for _, n := range r.c.controls() {
			j := &job{key: t.Key, request: w.asked[t.Key], ids: t.ID}
			w.submitTo(ctx, n, 0, j, "body")
			if t.Outcome == api.OutcomeExited {
				for _, stream := range []string{api.Stdout, api.Stderr} {
					h.Fetches = append(h.Fetches, fetch(ctx, n, t, stream))
				}
			}
		}
	}
	h.Ops = w.ops
	return r.live(ctx, h)
}

// fetch reads one stream of a task through a control node.
func fetch(ctx context.Context, n *node, t check.Record, stream string) check.Fetch {
	ctx, cancel := context.WithTimeout(ctx, outputWithin)
	defer cancel()
	f := check.Fetch{Task: t.ID, Key: t.Key, Node: n.name, Stream: stream}
	out, err := n.client.Output(ctx, t.ID, stream, api.OutputOptions{})
	if err == nil {
		sum, size := sha256.New(), int64(0)
		size, err = io.Copy(sum, out)
		err = errors.Join(err, out.Close())
		f.Got = fmt.Sprintf("%d-%s", size, hex.EncodeToString(sum.Sum(nil)))
	}
	if err != nil {
		f.Got = err.Error()
	}
	return f
}

// live hashes the record that each control node has in memory, at an index that is
// the same for all.
func (r *trial) live(ctx context.Context, h *check.History) error {
	within, cancel := context.WithTimeout(ctx, equalWithin)
	defer cancel()
	var failed error
	late := until(within, "the records of all control nodes at one index", func() bool {
		indexes := make(map[uint64]bool)
		h.Live, failed = make(map[string]string), nil
		for _, n := range r.c.controls() {
			var saved bytes.Buffer
			if failed = n.client.Save(within, &saved); failed != nil {
				return false
			}
			// It is hashed as it came: reading it might mend what is wrong with it.
			sum := sha256.Sum256(saved.Bytes())
			var index uint64
			if index, failed = indexOf(&saved); failed != nil {
				return false
			}
			indexes[index] = true
			h.Live[n.name] = fmt.Sprintf("%x at %d", sum, index)
		}
		return len(indexes) == 1
	})
	if late != nil {
		return errors.Join(late, failed)
	}
	return nil
}

// indexOf is the index of a saved record, which must be whole.
func indexOf(saved io.Reader) (uint64, error) {
	record, _, err := state.OpenArchive(saved)
	if err != nil {
		return 0, err
	}
	store := state.NewStore(state.Limits{})
	if err := store.Restore(record); err != nil {
		return 0, err
	}
	return store.Snapshot().Index(), nil
}
