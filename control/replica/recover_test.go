package replica

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"ecs/control/state"
	"ecs/internal/task"
)

func TestOneSurvivorBecomesAClusterOfItsOwn(t *testing.T) {
	nodes := diskCluster(t, 3)
	propose(t, nodes, state.Found{Cluster: "one"})
	for i := range 50 {
		propose(t, nodes, state.Submit{Task: &task.Task{ID: task.ID(fmt.Sprint("t", i))}})
	}
	survivor := diskLeader(t, nodes)
	term := survivor.node.Term()
	for _, d := range nodes {
		d.stop()
	}
	log := logger(t, "recover")
	if _, err := Recover(survivor.dir, "stranger", log); err == nil {
		t.Error("recovered for a node that is no member, want it refused")
	}
	for again := range 2 { // it may be repeated
		r, err := Recover(survivor.dir, survivor.id, log)
		if err != nil {
			t.Fatal(err)
		}
		if r.Tasks != 50 || r.Cluster != "one" || r.Incarnation != uint64(1+again) {
			t.Errorf("got %+v, want all of it", r)
		}
	}
	survivor.start(t)
	alone := []*diskNode{survivor}
	out := propose(t, alone, state.Submit{Task: &task.Task{ID: "after"}})
	sn := survivor.store.Snapshot()
	if sn.Counts().Pending != 51 || sn.Incarnation() != 2 || out.Index < 2*indexesAhead || survivor.node.Term() <= term+termsAhead {
		t.Errorf("got %+v at %d in term %d, want 51 tasks far ahead", sn.Counts(), out.Index, survivor.node.Term())
	}
	if v := survivor.node.Voters(); len(v) != 1 || v[0].ID != survivor.id {
		t.Errorf("got voters %v, want the survivor alone", v)
	}
	survivor.stop()
	survivor.start(t)
	propose(t, alone, state.Submit{Task: &task.Task{ID: "later"}})
	survivor.stop()
}

// The others come back with logs that no snapshot was made of, so that their records
// are empty until somebody leads them.
func TestOldPeersWithoutASnapshotDoNotDepose(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *cluster) {
		l := c.leader()
		if _, err := l.node.Propose(t.Context(), state.Found{Cluster: "one"}); err != nil {
			t.Fatal(err)
		}
		l.mustSubmit("before")
		c.settled()
		c.stop()
		if _, err := l.stores.Recover(l.name); err != nil {
			t.Fatal(err)
		}
		l.restart()
		c.leader().mustSubmit("after")
		term := l.node.Term()
		for _, m := range c.nodes {
			if m != l {
				m.restart()
			}
			if got := m.node.Lineage(); got.Cluster != "one" || (got.Recovery != "") != (m == l) {
				t.Errorf("%s starts with %+v", m.name, got)
			}
		}
		time.Sleep(time.Minute)
		if now, leading, _ := l.node.Leadership(); !leading || now != term || l.store.Snapshot().Task("after") == nil {
			t.Errorf("leads: %v, in term %d after %d, want the survivor not deposed", leading, now, term)
		}
	})
}

// kept is a log of which nothing can be dropped.
type kept struct{ raft.LogStore }

func (kept) DeleteRange(uint64, uint64) error { return errors.New("the power fails") }

func TestStartCompletesARecoveryThatBrokeOff(t *testing.T) {
	alone := diskCluster(t, 1)
	propose(t, alone, state.Found{Cluster: "one"})
	propose(t, alone, state.Submit{Task: &task.Task{ID: "before"}})
	d := alone[0]
	d.stop()
	f, err := openFiles(d.dir, logger(t, "recover"))
	if err != nil {
		t.Fatal(err)
	}
	f.log = kept{f.log}
	if r, err := f.recover(d.id); err == nil {
		t.Fatalf("got %+v, want the log not dropped", r)
	}
	if err := f.close(); err != nil {
		t.Fatal(err)
	}
	d.start(t)
	propose(t, alone, state.Submit{Task: &task.Task{ID: "after"}})
	if sn := d.store.Snapshot(); sn.Incarnation() != 1 || sn.Counts().Pending != 2 || d.node.Lineage().Recovery == "" {
		t.Errorf("got incarnation %d of %+v and %+v, want it recovered", sn.Incarnation(), d.node.Lineage(), sn.Counts())
	}
}

func TestRecordIsRestoredOnlyWhereThereIsNone(t *testing.T) {
	nodes := diskCluster(t, 1)
	for i := range 5 {
		propose(t, nodes, state.Submit{Task: &task.Task{ID: task.ID(fmt.Sprint("t", i))}})
	}
	old := nodes[0]
	var record bytes.Buffer
	if err := old.store.Snapshot().Write(&record); err != nil {
		t.Fatal(err)
	}
	old.stop()
	log := logger(t, "restore")
	if _, err := Restore(old.dir, old.id, old.addr, bytes.NewReader(record.Bytes()), 100, log); err == nil {
		t.Error("restored over a record, want it refused")
	}
	next := &diskNode{id: old.id, addr: old.addr, dir: filepath.Join(t.TempDir(), "next"), cert: old.cert}
	r, err := Restore(next.dir, next.id, next.addr, bytes.NewReader(record.Bytes()), 100, log)
	if err != nil || r.Tasks != 5 || r.Incarnation != 1 {
		t.Fatalf("got %+v, %v, want 5 tasks", r, err)
	}
	other := filepath.Join(t.TempDir(), "other")
	second, err := Restore(other, old.id, old.addr, bytes.NewReader(record.Bytes()), 100, log)
	if err != nil || second.ID == r.ID || second.Index == r.Index {
		t.Errorf("got %+v, %v after %+v, want nothing in common", second, err, r)
	}
	next.start(t)
	defer next.stop()
	if term := next.node.Term(); term < 100+termsAhead {
		t.Errorf("got term %d, want it beyond the archive's", term)
	}
	propose(t, []*diskNode{next}, state.Submit{Task: &task.Task{ID: "after"}})
	if got := next.store.Snapshot().Counts().Pending; got != 6 {
		t.Errorf("got %d tasks, want 6", got)
	}
}

func TestRestoreThatBrokeOffCanBeRepeated(t *testing.T) {
	var record bytes.Buffer
	if err := state.NewStore(state.Limits{}).Snapshot().Write(&record); err != nil {
		t.Fatal(err)
	}
	dir, log := t.TempDir(), logger(t, "restore")
	f, err := openFiles(dir, log)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.nextTerm(7); err != nil { // and then the power fails
		t.Fatal(err)
	}
	if err := f.close(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []bool{true, false} {
		_, err := Restore(dir, "c1", "c1:7449", bytes.NewReader(record.Bytes()), 100, log)
		if (err == nil) != want {
			t.Errorf("got %v, want the first to be done and the second refused", err)
		}
	}
}

func TestATermAloneIsNoState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, 1, func(cfg *Config) { cfg.Closed = true })
		m := c.nodes[0]
		if err := m.stores.Stable.SetUint64(currentTerm, 7); err != nil {
			t.Fatal(err)
		}
		m.start()
		defer m.stop()
		<-m.node.Ready()
		if m.node.HasState() || m.node.Admitted() {
			t.Error("it says that it belongs to a cluster")
		}
		if err := m.node.Bootstrap(map[string]string{m.name: m.node.cfg.Stream.Addr().String()}); err == nil || !strings.Contains(err.Error(), "empty the data directory") {
			t.Errorf("got %v, want the remedy", err)
		}
	})
}
