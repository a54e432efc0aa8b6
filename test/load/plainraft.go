package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

const (
	plainNodes = 3
	// plainEntry is about what a command of a task's adds to the log, in bytes.
	plainEntry = 300
	// electWithin is how long three nodes may take to agree on the first leader.
	electWithin = 30 * time.Second
)

// plainRaft measures what the control plane is set beside: the same library as it comes,
// with three nodes in one process, logs on the same disk, no TLS between them and
// nothing done with what is committed.
func plainRaft(ctx context.Context, o options) (runs []closedRun, err error) {
	dir, err := os.MkdirTemp("", "ecs-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	c := &plainCluster{}
	defer func() { err = errors.Join(err, c.shut()) }()
	leader, err := c.start(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("start plain Raft: %w", err)
	}
	for _, inFlight := range o.inFlight {
		times, took, err := commitTogether(ctx, leader, inFlight, o.span)
		if err != nil {
			return nil, fmt.Errorf("commit with plain Raft: %w", err)
		}
		rate := float64(len(times)) / took.Seconds()
		runs = append(runs, closedRun{InFlight: inFlight, Tasks: len(times), PerSec: rate, Lowest: rate, Highest: rate,
			P50: at(times, 0.5), P99: at(times, 0.99)})
	}
	return runs, nil
}

// commitTogether keeps so many entries in flight for the span, and gives what each
// took in milliseconds, sorted.
func commitTogether(ctx context.Context, leader *raft.Raft, inFlight int, span time.Duration) (all []float64, took time.Duration, err error) {
	within, cancel := context.WithTimeout(ctx, span)
	defer cancel()
	began := time.Now()
	times, failed := make([][]float64, inFlight), make([]error, inFlight)
	var callers sync.WaitGroup
	for i := range inFlight {
		callers.Go(func() {
			entry := make([]byte, plainEntry)
			for within.Err() == nil && failed[i] == nil {
				start := time.Now()
				failed[i] = leader.Apply(entry, electWithin).Error()
				times[i] = append(times[i], millis(start))
			}
		})
	}
	callers.Wait()
	all = slices.Concat(times...)
	slices.Sort(all)
	return all, time.Since(began), errors.Join(append(failed, ctx.Err())...)
}

// plainCluster is what has to be shut.
type plainCluster struct {
	nodes []*raft.Raft
	rest  []io.Closer
}

// start gives the leader.
func (c *plainCluster) start(ctx context.Context, dir string) (*raft.Raft, error) {
	leads := make(chan *raft.Raft, 1)
	var servers []raft.Server
	for i := range plainNodes {
		log, err := openPlainLog(filepath.Join(dir, strconv.Itoa(i)))
		if err != nil {
			return nil, err
		}
		c.rest = append(c.rest, log)
		transport, err := raft.NewTCPTransport("127.0.0.1:0", nil, maxPlainPool, electWithin, io.Discard)
		if err != nil {
			return nil, err
		}
		c.rest = append(c.rest, transport)
		cfg := raft.DefaultConfig()
		cfg.LocalID, cfg.LogOutput = raft.ServerID(strconv.Itoa(i)), io.Discard
		node, err := raft.NewRaft(cfg, nowhere{}, log, log, raft.NewDiscardSnapshotStore(), transport)
		if err != nil {
			return nil, err
		}
		c.nodes = append(c.nodes, node)
		node.RegisterObserver(raft.NewObserver(nil, false, func(o *raft.Observation) bool {
			if state, ok := o.Data.(raft.RaftState); ok && state == raft.Leader {
				select {
				case leads <- o.Raft:
				default: // there was one before
				}
			}
			return false
		}))
		servers = append(servers, raft.Server{ID: cfg.LocalID, Address: transport.LocalAddr()})
	}
	if err := c.nodes[0].BootstrapCluster(raft.Configuration{Servers: servers}).Error(); err != nil {
		return nil, err
	}
	select {
	case leader := <-leads:
		return leader, nil
	case <-time.After(electWithin):
		return nil, errors.New("no leader was elected")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// maxPlainPool is how many idle connections are kept to a peer.
const maxPlainPool = 3

func openPlainLog(dir string) (*wal.WAL, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	return wal.Open(dir)
}

func (c *plainCluster) shut() error {
	var failed []error
	for _, node := range c.nodes {
		failed = append(failed, node.Shutdown().Error())
	}
	for _, r := range c.rest {
		failed = append(failed, r.Close())
	}
	return errors.Join(failed...)
}

// nowhere does nothing with what is committed.
type nowhere struct{}

func (nowhere) Apply(*raft.Log) any                 { return nil }
func (nowhere) Snapshot() (raft.FSMSnapshot, error) { return nil, errors.New("nothing is kept") }
func (nowhere) Restore(io.ReadCloser) error         { return nil }
