package replica

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"

	"ecs/control/state"
)

// Replay makes the record from what a node that does not run has in its
// directory: the newest snapshot that is not beyond upTo, and the log after it as
// far as upTo, or as it goes where that is 0. It gives the record and the last
// index of the log. It is for checks: an entry at the log's end need not be
// committed.
func Replay(dir string, upTo uint64) (sn *state.Snapshot, last uint64, err error) {
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	logger := newHCLogger(slog.New(slog.DiscardHandler))
	log, err := wal.Open(filepath.Join(dir, "wal"), wal.WithLogger(logger))
	if err != nil {
		return nil, 0, fmt.Errorf("open the log in %s: %w", dir, err)
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	if last, err = log.LastIndex(); err != nil {
		return nil, 0, fmt.Errorf("look for the log's end: %w", err)
	}
	if upTo == 0 {
		upTo = last
	}
	store := state.NewStore(state.Limits{})
	if err := restoreUpTo(store, dir, upTo); err != nil {
		return nil, last, err
	}
	for at := store.Snapshot().Index() + 1; at <= upTo; at++ {
		var entry raft.Log
		if err := log.GetLog(at, &entry); err != nil {
			return nil, last, fmt.Errorf("read entry %d: %w", at, err)
		}
		if entry.Type != raft.LogCommand {
			continue
		}
		if _, err := store.Apply(at, entry.Data); err != nil {
			return nil, last, err
		}
	}
	return store.Snapshot(), last, nil
}

// restoreUpTo restores the newest snapshot that is not beyond an index, if there
// is one.
func restoreUpTo(store *state.Store, dir string, upTo uint64) error {
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(dir, retainSnapshots, newHCLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		return fmt.Errorf("open the snapshots in %s: %w", dir, err)
	}
	list, err := snapshots.List() // the newest first
	if err != nil {
		return fmt.Errorf("list the snapshots in %s: %w", dir, err)
	}
	for _, meta := range list {
		if meta.Index > upTo {
			continue
		}
		_, r, err := snapshots.Open(meta.ID)
		if err != nil {
			return fmt.Errorf("open snapshot %s: %w", meta.ID, err)
		}
		defer r.Close()
		return store.Restore(r)
	}
	return nil
}
