package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"time"

	"ecs/control"
	"ecs/control/api"
	"ecs/control/replica"
	"ecs/internal/access"
	"ecs/internal/clusterfiles"
	"ecs/internal/daemon"
	"ecs/internal/pki"
	"ecs/internal/seal"
	"ecs/internal/tracing"
)

// leastSnapshotEntries: with fewer a follower could find its place in the log gone
// each time that a snapshot has reached it.
const leastSnapshotEntries = 50

// defaultHtpasswd need not be there.
const defaultHtpasswd = "/etc/ecs/htpasswd"

// options are the settings of a control node, and what Check has read.
type options struct {
	daemon.Place
	daemon.Trust
	expect                                  int
	httpAddr, healthAddr, rpcAddr, raftAddr string
	htpasswd, sealKey                       string
	auditLog, otlp                          string
	auditArgv                               bool
	drain                                   time.Duration
	snapshotEntries                         int
	snapshotInterval                        time.Duration

	publicOptions
	caKey     string
	authority *control.Authority // nil: this node does not sign

	node      *pki.Node
	gossipKey []byte
	box       *seal.Box
	keys      *api.Htpasswd
	role      daemon.Choice
	limits    api.Limits
}

func (o *options) define(fs *flag.FlagSet) {
	o.Place.Define(fs, "/var/lib/ecs/control")
	o.Trust.Define(fs)
	fs.IntVar(&o.expect, "bootstrap-expect", 3, "`number` of control nodes (1, 3 or 5) that form a new cluster; 0: this one forms none and waits to join one")
	fs.StringVar(&o.httpAddr, "http-addr", "127.0.0.1:8448", "`host:port` for the HTTP API")
	fs.StringVar(&o.healthAddr, "health-addr", ":8080", "`host:port` for load balancers' health checks")
	fs.StringVar(&o.rpcAddr, "rpc-addr", ":7448", "`host:port` for agents and other control nodes")
	fs.StringVar(&o.raftAddr, "raft-addr", ":7449", "`host:port` for Raft")
	fs.StringVar(&o.htpasswd, "htpasswd", defaultHtpasswd, "`file` of API keys and hashes of their secrets, beside the keys of the cluster's own record; empty, or the default one and not there: the record's alone")
	o.role = daemon.Choice{Value: string(access.Run), Allowed: []string{string(access.Run), string(access.Operate), string(access.Admin)}}
	fs.Var(&o.role, "htpasswd-role", "`role` of the keys in the htpasswd file: run (its own tasks), operate (those of all) or admin")
	fs.StringVar(&o.caKey, "ca-key", "", "`file` with the key of the cluster's authority: this node then makes join tokens, admits nodes and renews certificates; empty: it does not")
	o.defineLimits(fs)
	o.publicOptions.define(fs)
	fs.StringVar(&o.sealKey, "seal-key", "/etc/ecs/seal.key", "`file` with the key that seals what the log must not show")
	fs.DurationVar(&o.drain, "drain", 20*time.Second, "how `long` to go on accepting after the health check failed, when stopped or leaving, so that load balancers notice")
	usual := replica.DefaultConfig()
	fs.IntVar(&o.snapshotEntries, "snapshot-entries", int(usual.SnapshotThreshold), "`number` of log entries that make a snapshot of the record due, which lets the log be cut short")
	fs.DurationVar(&o.snapshotInterval, "snapshot-interval", usual.SnapshotInterval, "how `often` it is looked whether a snapshot is due")
	fs.StringVar(&o.auditLog, "audit-log", "", "`file` that who did what is appended to, as JSON lines; empty: none")
	fs.StringVar(&o.otlp, "otlp-endpoint", "", "`URL` that traces are sent to, such as http://127.0.0.1:4318/v1/traces; the OTEL_ variables say more; empty: OTEL_EXPORTER_OTLP_ENDPOINT's, or none")
	fs.BoolVar(&o.auditArgv, "audit-argv", false, "write command lines into the audit log as they are, not as hashes; they may hold secrets")
}

func (o *options) check() error {
	var err error
	faults := []error{
		o.Place.Check(),
		daemon.CheckAddr("http-addr", o.httpAddr),
		daemon.CheckAddr("health-addr", o.healthAddr),
		daemon.CheckAddr("rpc-addr", o.rpcAddr),
		daemon.CheckAddr("raft-addr", o.raftAddr),
	}
	if o.expect != 0 && o.expect != 1 && o.expect != 3 && o.expect != 5 {
		faults = append(faults, fmt.Errorf("--bootstrap-expect %d: want 0, 1, 3 or 5", o.expect))
	}
	if o.snapshotEntries < leastSnapshotEntries {
		faults = append(faults, fmt.Errorf("--snapshot-entries %d: want %d or more", o.snapshotEntries, leastSnapshotEntries))
	}
	if o.snapshotInterval < time.Second {
		faults = append(faults, fmt.Errorf("--snapshot-interval %s: want 1s or more", o.snapshotInterval))
	}
	if !o.Trust.Awaited() {
		faults = append(faults, o.openTrust())
	}
	if _, err := tracing.Wanted(o.otlp, os.Getenv); err != nil {
		faults = append(faults, err)
	}
	faults = append(faults, o.checkLimits(), o.publicOptions.check(o.httpAddr))
	if _, err := os.Stat(o.htpasswd); o.htpasswd == "" || o.htpasswd == defaultHtpasswd && errors.Is(err, fs.ErrNotExist) {
		return errors.Join(faults...) // the record's keys alone
	}
	if o.keys, err = api.NewHtpasswd(o.htpasswd); err != nil {
		faults = append(faults, fmt.Errorf("read the API keys: %w", err))
	}
	return errors.Join(faults...)
}

// openTrust reads what this node proves itself with and keeps secrets by.
func (o *options) openTrust() error {
	var faults []error
	var err error
	if o.node, o.gossipKey, err = o.Trust.Load(pki.RoleControl); err != nil {
		faults = append(faults, err)
	}
	if key, err := clusterfiles.ReadKey(o.sealKey); err != nil {
		faults = append(faults, fmt.Errorf("read the seal key: %w", err))
	} else if o.box, err = seal.NewBox(key); err != nil {
		faults = append(faults, err)
	}
	if o.authority, err = o.openAuthority(); err != nil {
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// openAuthority reads what is needed to let other nodes in, where there is a key
// for it.
func (o *options) openAuthority() (*control.Authority, error) {
	if o.caKey == "" {
		return nil, nil
	}
	cert, err := os.ReadFile(o.CA)
	if err != nil {
		return nil, fmt.Errorf("read the cluster's authority: %w", err)
	}
	key, err := os.ReadFile(o.caKey)
	if err != nil {
		return nil, fmt.Errorf("read the authority's key: %w", err)
	}
	ca, err := pki.LoadCA(cert, key)
	if err != nil {
		return nil, fmt.Errorf("use --ca-key %s: %w", o.caKey, err)
	}
	sealKey, err := clusterfiles.ReadKey(o.sealKey)
	if err != nil {
		return nil, fmt.Errorf("read the seal key: %w", err)
	}
	return &control.Authority{CA: ca, SealKey: sealKey}, nil
}
