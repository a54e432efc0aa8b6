package replica

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/oklog/ulid/v2"

	"ecs/control/state"
)

const (
	// indexesAhead is how far beyond everything that the survivor knows a cluster
	// goes on that was recovered: the old one can't have come so far without it,
	// and so no epoch is ever given twice. Up to as much again is left to chance,
	// of terms far more: two recoveries of one past must not give the same either,
	// and no entry of one may pass for an entry of the other.
	indexesAhead = 1 << 24
	termsAhead   = 1 << 10
	termsChance  = 1 << 20
)

// Recovery says what Recover or Restore made.
type Recovery struct {
	Cluster     string
	Incarnation uint64
	ID          string // of this recovery, a ULID
	Tasks       int    // in the record
	Live        int    // of them, that ran as far as it knows
	Nodes       int    // agents
	Index       uint64
	Others      []string // control nodes that were members before
}

// Recover makes a cluster of its own out of what one control node has in dir,
// the parent of its log, while no process uses it: another incarnation, whose
// only control node it is. Everything in the log counts, committed or not; what
// the others had and this one had not is lost.
//
// It may be repeated where it broke off.
func Recover(dir, id string, log *slog.Logger) (*Recovery, error) {
	if _, err := os.Stat(filepath.Join(dir, "wal")); err != nil {
		return nil, fmt.Errorf("recover: no log of a control node in %s: %w", dir, err)
	}
	f, err := openFiles(dir, log)
	if err != nil {
		return nil, err
	}
	r, err := f.recover(id)
	return r, errors.Join(err, f.close())
}

// Recover is the function of that name for what a node has in memory.
func (s *Stores) Recover(id string) (*Recovery, error) {
	f := &files{log: s.Log, stable: s.Stable, snapshots: s.Snapshots}
	return f.recover(id)
}

// Restore puts a record that state.Snapshot.Write wrote into dir, where there
// must be none, as that of the only control node of a cluster: id at addr. term is
// the one that the old cluster was in, as far as is known. It may be repeated where
// it broke off.
func Restore(dir, id, addr string, record io.Reader, term uint64, log *slog.Logger) (*Recovery, error) {
	f, err := openFiles(dir, log)
	if err != nil {
		return nil, err
	}
	r, err := f.restore(id, addr, record, term)
	return r, errors.Join(err, f.close())
}

// files are a control node's, open while it does not run.
type files struct {
	log       raft.LogStore
	stable    raft.StableStore
	snapshots raft.SnapshotStore
	close     func() error
}

func openFiles(dir string, logTo *slog.Logger) (*files, error) {
	logDir := filepath.Join(dir, "wal")
	if err := os.MkdirAll(logDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the log's directory: %w", err)
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, fmt.Errorf("is the control node stopped? %w", err)
	}
	logger := newHCLogger(logTo)
	log, err := wal.Open(logDir, wal.WithLogger(logger))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", logDir, err), unlock())
	}
	f := &files{log: log, stable: log, close: func() error { return errors.Join(log.Close(), unlock()) }}
	if f.snapshots, err = raft.NewFileSnapshotStoreWithLogger(dir, retainSnapshots, logger); err != nil {
		return nil, errors.Join(fmt.Errorf("open the snapshots in %s: %w", dir, err), f.close())
	}
	return f, nil
}

func (f *files) recover(id string) (*Recovery, error) {
	old, err := f.read()
	if err != nil {
		return nil, fmt.Errorf("recover: %w", err)
	}
	addr := ""
	var others []string
	for _, s := range old.configuration.Servers {
		if string(s.ID) == id {
			addr = string(s.Address)
		} else {
			others = append(others, string(s.ID))
		}
	}
	if addr == "" {
		return nil, fmt.Errorf("recover: the log does not name %s as a member of the cluster: take another survivor", id)
	}
	r, err := f.begin(old, id, addr)
	if err != nil {
		return nil, fmt.Errorf("recover: %w", err)
	}
	r.Others = others
	return r, nil
}

func (f *files) restore(id, addr string, record io.Reader, term uint64) (*Recovery, error) {
	err := f.empty()
	old := &past{store: state.NewStore(state.Limits{}), term: term}
	if err == nil {
		err = old.store.Restore(record)
	}
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	old.index = old.store.Snapshot().Index()
	r, err := f.begin(old, id, addr)
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	return r, nil
}

// empty refuses a control node that has a record. A term alone is none: it is what
// begin writes first.
func (f *files) empty() error {
	last, errLog := f.log.LastIndex()
	list, errList := f.snapshots.List()
	if err := errors.Join(errLog, errList); err != nil {
		return fmt.Errorf("look for a record: %w", err)
	}
	if last > 0 || len(list) > 0 {
		return errors.New("this control node has a record already: empty its data directory first")
	}
	return nil
}

// past is what a control node had.
type past struct {
	store         *state.Store
	configuration raft.Configuration
	index, term   uint64
}

// read plays the newest good snapshot and the log after it.
func (f *files) read() (*past, error) {
	p := &past{store: state.NewStore(state.Limits{})}
	list, err := f.snapshots.List()
	if err != nil {
		return nil, fmt.Errorf("list the snapshots: %w", err)
	}
	var faults []error
	for _, s := range list {
		meta, source, err := f.snapshots.Open(s.ID)
		if err == nil {
			err = errors.Join(p.store.Restore(source), source.Close())
		}
		if err == nil {
			p.index, p.term, p.configuration = meta.Index, meta.Term, meta.Configuration
			break
		}
		faults = append(faults, fmt.Errorf("snapshot %s: %w", s.ID, err))
	}
	if len(list) > 0 && p.index == 0 {
		return nil, fmt.Errorf("no snapshot can be read: %w", errors.Join(faults...))
	}
	last, err := f.log.LastIndex()
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	for index := p.index + 1; index <= last; index++ {
		if err := p.play(f.log, index); err != nil {
			return nil, err
		}
	}
	if p.index == 0 {
		return nil, errors.New("there is nothing in the log")
	}
	return p, nil
}

func (p *past) play(log raft.LogStore, index uint64) error {
	var entry raft.Log
	if err := log.GetLog(index, &entry); err != nil {
		return fmt.Errorf("read entry %d: %w", index, err)
	}
	switch entry.Type {
	case raft.LogCommand:
		if _, err := p.store.Apply(entry.Index, entry.Data); err != nil {
			return err
		}
	case raft.LogConfiguration:
		p.configuration = raft.DecodeConfiguration(entry.Data)
	}
	p.index, p.term = entry.Index, entry.Term
	return nil
}

// begin writes the first snapshot of the next incarnation, and then drops the log.
func (f *files) begin(old *past, id, addr string) (*Recovery, error) {
	index := old.index + indexesAhead + rand.Uint64N(indexesAhead)
	term, err := f.nextTerm(old.term)
	if err != nil {
		return nil, err
	}
	counts := old.store.Snapshot().Counts()
	sn := old.store.Recovered(index, ulid.Make().String())
	only := raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(id), Address: raft.ServerAddress(addr)}}}
	_, nowhere := raft.NewInmemTransport("")
	sink, err := f.snapshots.Create(raft.SnapshotVersionMax, index, term, only, index, nowhere)
	if err != nil {
		return nil, fmt.Errorf("write the record: %w", err)
	}
	if err := sn.Write(sink); err != nil {
		return nil, errors.Join(err, sink.Cancel())
	}
	if err := sink.Close(); err != nil {
		return nil, fmt.Errorf("write the record: %w", err)
	}
	if err := f.dropLog(); err != nil {
		return nil, err
	}
	r := &Recovery{Cluster: sn.Cluster(), Incarnation: sn.Incarnation(), ID: sn.Recovery(),
		Tasks: counts.Pending + counts.Live + counts.Finished, Live: counts.Live, Index: index}
	for range sn.Nodes() {
		r.Nodes++
	}
	return r, nil
}

// currentTerm is raft's own name for what it keeps under it.
var currentTerm = []byte("CurrentTerm")

// nextTerm moves on to a term that no node of the old incarnation can be in, so
// that agents take none of them for the leader.
func (f *files) nextTerm(seen uint64) (uint64, error) {
	known, err := f.stable.GetUint64(currentTerm)
	if err != nil && err.Error() != "not found" {
		return 0, fmt.Errorf("read the term: %w", err)
	}
	term := max(known, seen) + termsAhead + rand.Uint64N(termsChance)
	if err := f.stable.SetUint64(currentTerm, term); err != nil {
		return 0, fmt.Errorf("write the term: %w", err)
	}
	return term, nil
}

func (f *files) dropLog() error {
	first, err := f.log.FirstIndex()
	last, errLast := f.log.LastIndex()
	if err := errors.Join(err, errLast); err != nil {
		return fmt.Errorf("look at the old log: %w", err)
	}
	if last == 0 {
		return nil
	}
	if err := f.log.DeleteRange(first, last); err != nil {
		return fmt.Errorf("drop the old log: %w", err)
	}
	return nil
}
