package state_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"testing"

	"google.golang.org/protobuf/proto"

	"ecs/control/state"
	ecsv1 "ecs/proto/ecs/v1"
)

// Whatever a command's bytes are, it is refused or comes back the same.
func FuzzFromWire(f *testing.F) {
	for _, c := range everyCommand() {
		b, err := proto.Marshal(state.ToWire(c, busyEnd))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m ecsv1.Command
		if proto.Unmarshal(b, &m) != nil {
			return
		}
		c, now, err := state.FromWire(&m)
		if err != nil {
			return
		}
		once := state.ToWire(c, now)
		c2, now2, err := state.FromWire(once)
		if err != nil {
			t.Fatalf("read again: %v", err)
		}
		if twice := state.ToWire(c2, now2); !proto.Equal(once, twice) {
			t.Errorf("got  %v\nwant %v", twice, once)
		}
	})
}

// Whatever an entry's bytes are, two stores make the same of it, and what they
// hold can be written and restored.
func FuzzApply(f *testing.F) {
	w := busy(f)
	for _, b := range w.log {
		f.Add(b)
	}
	for _, c := range everyCommand() {
		f.Add(entry(f, busyEnd, c, c))
	}
	base := written(f, w.sn())
	f.Fuzz(func(t *testing.T, b []byte) {
		stores := [2]*state.Store{state.NewStore(state.Limits{}), state.NewStore(state.Limits{})}
		for _, s := range stores {
			if err := s.Restore(bytes.NewReader(base)); err != nil {
				t.Fatal(err)
			}
		}
		for round := range uint64(2) {
			index := stores[0].Snapshot().Index() + 1 + round
			_, err := stores[0].Apply(index, b)
			if _, err2 := stores[1].Apply(index, b); (err == nil) != (err2 == nil) {
				t.Fatalf("one store: %v, the other: %v", err, err2)
			}
		}
		image := written(t, stores[0].Snapshot())
		if !bytes.Equal(image, written(t, stores[1].Snapshot())) {
			t.Fatal("two stores made different records of the same entry")
		}
		third := state.NewStore(state.Limits{})
		if err := third.Restore(bytes.NewReader(image)); err != nil {
			t.Fatalf("what was applied can't be restored: %v", err)
		}
		same(t, third.Snapshot(), stores[0].Snapshot())
	})
}

// Whatever a snapshot's bytes are, it is refused or gives a store that works.
func FuzzRestore(f *testing.F) {
	f.Add([]byte{})
	f.Add(written(f, state.NewStore(state.Limits{}).Snapshot()))
	f.Add(written(f, busy(f).sn()))
	next := entry(f, busyEnd, everyCommand()...)
	f.Fuzz(func(t *testing.T, b []byte) {
		s := state.NewStore(state.Limits{})
		if s.Restore(bytes.NewReader(b)) != nil {
			return
		}
		again := state.NewStore(state.Limits{})
		if err := again.Restore(bytes.NewReader(written(t, s.Snapshot()))); err != nil {
			t.Fatalf("what was restored can't be restored again: %v", err)
		}
		same(t, again.Snapshot(), s.Snapshot())
		index := s.Snapshot().Index() + 1
		if index == 0 {
			return // the last index there is
		}
		if _, err := s.Apply(index, next); err != nil {
			t.Fatalf("apply to what was restored: %v", err)
		}
		if _, err := again.Apply(index, next); err != nil {
			t.Fatal(err)
		}
		same(t, again.Snapshot(), s.Snapshot())
	})
}

// FuzzArchive opens what an operator may hold out as a saved record.
func FuzzArchive(f *testing.F) {
	var whole bytes.Buffer
	if err := state.NewStore(state.Limits{}).Snapshot().Archive(&whole, 7); err != nil {
		f.Fatal(err)
	}
	f.Add(whole.Bytes())
	f.Add(whole.Bytes()[:whole.Len()-1])
	f.Add([]byte("ecs snapshot 1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		record, _, err := state.OpenArchive(bytes.NewReader(b))
		if err != nil {
			return
		}
		inside, err := io.ReadAll(record)
		if err != nil {
			return
		}
		// It is whole: with any other byte it is not.
		if len(b) < len(inside)+sha256.Size {
			t.Errorf("%d bytes came out of %d", len(inside), len(b))
		}
		b = bytes.Clone(b)
		b[len(b)-1] ^= 1
		if record, _, err := state.OpenArchive(bytes.NewReader(b)); err == nil {
			if _, err := io.ReadAll(record); !errors.Is(err, state.ErrArchive) {
				t.Errorf("got %v of a checksum that is wrong", err)
			}
		}
	})
}
