// Package fleet runs many agents in one process, with engines in memory, for
// measuring the control plane alone. Everything of an agent is real but the
// engine and the gossip: sessions with mutual TLS, leases, the spool, reports.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	_ "net/http/pprof" // on the default mux, which only -debug serves
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/grpc"

	"ecs/agent"
	"ecs/agent/runtime/fake"
	"ecs/agent/spool"
	"ecs/internal/clusterfiles"
	"ecs/internal/daemon"
	"ecs/internal/pki"
	"ecs/internal/task"
	"ecs/internal/telemetry"
)

// Config is what a fleet needs. All but Dir and Debug is required.
type Config struct {
	ClusterDir string   // of a dev cluster: its authority signs the agents' certificates
	Controls   []string // gRPC addresses
	Agents     int
	Zones      []string
	Capacity   task.Capacity // of each agent
	Dir        string        // for the agents' spools; empty: the system's
	Debug      string        // where profiles are served, host:port; empty: nowhere
}

// Run runs the agents until ctx ends and all of them have left.
func Run(ctx context.Context, cfg Config) error {
	ca, err := clusterfiles.OpenCA(cfg.ClusterDir)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(cfg.Dir, "ecs-fleet-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if cfg.Debug != "" {
		go func() { _ = http.ListenAndServe(cfg.Debug, nil) }() // ends with the process
	}
	// The engines in memory are no part of what is measured: their garbage is
	// collected seldom.
	debug.SetGCPercent(400)
	var running sync.WaitGroup
	failed := make(chan error, cfg.Agents)
	for i := range cfg.Agents {
		a, err := newAgent(cfg, ca, i, filepath.Join(dir, fmt.Sprint(i)))
		if err != nil {
			return err
		}
		running.Go(func() { failed <- a.Run(ctx) })
	}
	running.Wait()
	close(failed)
	var all []error
	for err := range failed {
		all = append(all, err)
	}
	return errors.Join(all...)
}

func newAgent(cfg Config, ca *pki.CA, i int, dir string) (*agent.Agent, error) {
	name := fmt.Sprintf("fleet%04d", i)
	cert, key, err := ca.Issue(pki.Identity{Cluster: ca.Cluster(), Role: pki.RoleAgent, ID: name}, []string{"127.0.0.1"}, time.Now(), 24*time.Hour)
	if err != nil {
		return nil, err
	}
	node, err := pki.NewNode(ca.CertPEM(), cert, key)
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	files, err := spool.Open(dir, 1<<30, log)
	if err != nil {
		return nil, err
	}
	engine := fake.NewEngine()
	// 200 agents would ask the kernel for the boot's time all the time; the
	// machine does not sleep while it is measured.
	began := time.Now()
	now := func() time.Duration { return time.Since(began) }
	engine.SetClock(now)
	dial := daemon.Dialer(node, pki.RoleControl)
	never := make(chan struct{})
	return agent.New(agent.Config{
		ID: task.NodeID(name), Name: name, Zone: cfg.Zones[i%len(cfg.Zones)], Version: "fleet", Capacity: cfg.Capacity,
		OutputAddr: "127.0.0.1:9", // nobody asks: what programs write fits the record
		Runtime:    engine, Images: engine.Images(), Spool: files,
		Controls: func() ([]string, <-chan struct{}) { return cfg.Controls, never },
		Dial:     func(_ context.Context, addr string) (*grpc.ClientConn, error) { return dial(addr) },
		Now:      now, Grace: -1, Log: log, Metrics: telemetry.Discard(),
	}), nil
}
