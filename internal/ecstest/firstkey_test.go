package ecstest_test

import (
	"sync"
	"testing"
	"time"

	"ecs/control"
	"ecs/internal/ecstest"
)

// drawers keep the first admin keys of all nodes, as their disks would.
type drawers struct {
	mu    sync.Mutex
	kept  map[string]string // by node
	told  map[string]int
	drawn int
}

func (d *drawers) of(node string) control.FirstKey { return drawer{d, node} }

type drawer struct {
	*drawers
	node string
}

func (d drawer) Draw() (key, secret string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.kept[d.node] == "" {
		d.drawn++
		d.kept[d.node] = "first-" + d.node
	}
	return d.kept[d.node], "secret", nil
}

func (d drawer) Kept() (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.kept[d.node], nil
}

func (d drawer) Tell() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.told[d.node]++
}

func (d drawer) Drop() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.kept, d.node)
	return nil
}

// toldBy is who keeps a key, and how often that was told.
func (d *drawers) toldBy() (node string, times int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for node := range d.kept {
		return node, d.told[node]
	}
	return "", 0
}

// An upgrade whose last node is a follower ends with an admin key, and whoever keeps
// it is told again when a node starts that may have died before it could.
func TestTheFirstAdminKeyWaitsForTheLastNodeAndIsTold(t *testing.T) {
	keys := &drawers{kept: map[string]string{}, told: map[string]int{}}
	var mu sync.Mutex
	old := "c3"
	ecstest.Bubble(t, ecstest.Options{FirstKey: keys.of, Version: func(node string) string {
		mu.Lock()
		defer mu.Unlock()
		if node == old {
			return "before"
		}
		return "test"
	}}, func(c *ecstest.Cluster) {
		last := c.Controls[2]
		for last == c.Leader() { // the last one is a follower
			last.Crash()
			time.Sleep(time.Minute)
			last.Restart()
			time.Sleep(time.Minute)
		}
		time.Sleep(time.Minute)
		if n := c.Leader().Snapshot().KeyCount(); n != 0 || keys.drawn != 0 {
			t.Fatalf("got %d keys while nodes of two versions run, %d drawn", n, keys.drawn)
		}
		term := c.Leader()
		mu.Lock()
		old = ""
		mu.Unlock()
		last.Crash()
		time.Sleep(time.Minute)
		last.Restart()
		time.Sleep(time.Minute)
		if c.Leader() != term {
			t.Fatal("another node leads: this shows nothing")
		}
		keeper, told := keys.toldBy()
		if n := c.Leader().Snapshot().KeyCount(); n != 1 || keeper != term.Name() || told == 0 {
			t.Fatalf("got %d keys after the upgrade, kept by %q and told %d times", n, keeper, told)
		}
		// A node that kept one that came second has it no more.
		keys.mu.Lock()
		keys.kept[last.Name()] = "second"
		keys.mu.Unlock()
		for _, n := range []*ecstest.Control{last, term} {
			n.Crash()
			time.Sleep(time.Minute)
			n.Restart()
			time.Sleep(time.Minute)
		}
		keys.mu.Lock()
		defer keys.mu.Unlock()
		if keys.kept[last.Name()] != "" || keys.kept[term.Name()] == "" || keys.told[term.Name()] <= told {
			t.Errorf("got %v kept and %v told, before %d", keys.kept, keys.told, told)
		}
	})
}
