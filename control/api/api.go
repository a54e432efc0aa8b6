// Package api is the HTTP side of a control node: routes, the checks of what
// callers send, and the answers.
//
// It decides nothing about tasks. What it needs of the rest of the node it
// declares here as small interfaces; package control provides them. It starts
// no goroutine that outlives its request.
package api

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/armon/go-metrics"

	"ecs/control/state"
	"ecs/internal/access"
	"ecs/internal/task"
	"ecs/internal/telemetry"
	"ecs/proto/api"
)

// Tasks changes the record of tasks. Errors that a caller can act on are
// *task.Error.
type Tasks interface {
	// Submit commits a new task. existed says that an earlier request with
	// the same key made the task that is returned. quota is how many tasks
	// its owner may have waiting for a node; 0: as many as there may be.
	Submit(ctx context.Context, t *task.Task, quota int) (committed *task.Task, existed bool, err error)
	// Stop asks for a task to end as outcome; owner "" is the operator.
	Stop(ctx context.Context, id task.ID, owner string, outcome task.Outcome, reason string) (*task.Task, error)
}

// Reader gives the record as this node has it.
type Reader interface {
	Snapshot() *state.Snapshot
	// Sync waits until Snapshot holds everything committed before the call.
	Sync(ctx context.Context) error
	// CatchUp waits until Snapshot holds the entry of an index.
	CatchUp(ctx context.Context, index uint64) error
}

// Explainer says why a pending task waits and where it is in the queue.
type Explainer interface {
	Explain(ctx context.Context, id task.ID) (because string, position int, err error)
}

// OutputChunk is a piece of a stream.
type OutputChunk struct {
	Offset    int64
	Data      []byte // valid until send returns
	End       bool   // the last piece: the stream has ended
	Truncated bool
	Bytes     int64 // the program wrote, set with End
}

// Outputs reads the output of finished tasks and of live attempts, and of
// finished ones, as the stream api.OutputsTar, the files they left. limit 0 is
// everything. With follow it stays until the present attempt's stream ends.
// Output that is gone is a *task.Error with CodeOutputLost.
type Outputs interface {
	Output(ctx context.Context, t *task.Task, stream string, offset, limit int64, follow bool, send func(OutputChunk) error) error
}

// Cluster is what a node knows of its cluster, and what operators change.
type Cluster interface {
	Info(ctx context.Context) ClusterInfo
	// Drain makes a node take nothing new, or take tasks again.
	Drain(ctx context.Context, node task.NodeID, drain bool) (*task.Node, error)
	// SendAway has a node leave the cluster in good order, an agent or a control
	// node. With force one that can't be asked is taken out all the same. It says
	// what happens now; that goes on after it returned.
	SendAway(ctx context.Context, node string, force bool) (detail string, err error)
	// RotateGossipKey begins a rotation; it goes on after it returned, and Info
	// says how far it is. by is the key that asks.
	RotateGossipKey(ctx context.Context, by string) error
	Health(ctx context.Context) Health
}

// Logs finds what nodes wrote of late.
type Logs interface {
	// Logs gathers the lines of one correlation id from every node there is.
	// Nodes that do not answer in time are named, not waited for.
	Logs(ctx context.Context, search LogSearch) LogsFound
}

// LogSearch is what Logs looks for.
type LogSearch struct {
	CID   string
	Owner string // whose lines; empty: everybody's
	Lines int    // at most so many, the newest
}

// LogsFound is what Logs gives.
type LogsFound struct {
	Lines  [][]byte // JSON objects, oldest first
	Cut    bool     // older ones were left out
	Asked  int      // nodes
	Silent []Silent // those that did not answer
}

// Silent is a node that gave no lines, and why.
type Silent struct{ Node, Role, Detail string }

// Traces exports spans of requests; see tracing.Tracer.
type Traces interface {
	// Request begins the span of a request and gives its traceparent, what
	// adds a part of it that is over, and what ends it.
	Request(h http.Header, at time.Time) (parent string, part func(name string, from, to time.Time), end func(name, cid string, status int))
}

// ClusterInfo is the cluster as this node sees it.
type ClusterInfo struct {
	Name    string // of the cluster
	Node    string // this one
	Version string
	Leader  string // id, empty when none is known
	Term    uint64
	Voters  []Voter
	Members []Member
	Gossip  Rotation
}

// Rotation is the gossip key, and how far its last rotation is.
type Rotation struct {
	Version       uint64 // of the ring; 0: the key is that of the settings, none was rotated
	KeyID, NextID string // the key that encrypts, and the one that a rotation brings; NextID: while there is one
	Step          string // add, use or remove; empty: no rotation is under way
	StartedAt     time.Time
	EndedAt       time.Time
	StartedBy     string
	Waiting       []Holder // who has not confirmed the ring
	Skipped       []string // who was not waited for, by id
}

// Holder is a node that has not confirmed the newest ring.
type Holder struct {
	ID, Name, Role string
	Gone           bool // nothing is heard of it: it catches up when it is back
}

// Voter is one control node of the replicated configuration.
type Voter struct {
	ID, Addr string
	Voter    bool
}

// Member is one process that gossip shows.
type Member struct {
	ID, Name, Role, Zone, Version, HTTPAddr string
	Draining                                bool
}

// Health says whether this node can accept and answer a task.
type Health struct {
	Ready   bool
	Reasons []string // why not, for people
	Checks  []Check  // raft, gossip, disk, certificate, ...
}

// Check is one thing that was looked at.
type Check struct {
	Name   string
	OK     bool
	Detail string
}

// Sealer hides what only agents may learn and makes keyed hashes.
type Sealer interface {
	Seal(plain, bound []byte) ([]byte, error)
	MAC(data []byte) []byte
}

// Authenticator knows who may call. It may be called by many goroutines; see
// Keyring.
type Authenticator interface {
	Remembered(key, secret string) (access.Principal, bool)
	Authenticate(ctx context.Context, a Attempt) (access.Principal, error)
	// Holder gives who a key is whose secret was checked before. stamp is
	// another when the secret is; ok is false when the key counts no more.
	Holder(key string) (who access.Principal, stamp string, ok bool)
	// Counts reports whether who was let in would still be.
	Counts(who access.Principal) bool
	// Changed gives a channel that closes when Counts may have changed, and after
	// how long it may have without one; 0: never.
	Changed() (changed <-chan struct{}, again time.Duration)
}

// Keys changes API keys and join tokens. Errors that a caller can act on are
// *task.Error; when it returns without one, Reader has the change.
type Keys interface {
	PutKey(ctx context.Context, k access.Key) error
	RevokeKey(ctx context.Context, id, by string) error
}

// Config is everything the handler is given.
type Config struct {
	Tasks     Tasks
	Reader    Reader
	Explainer Explainer
	Outputs   Outputs
	Inputs    Inputs
	Cluster   Cluster
	Images    ImageStore
	Logs      Logs
	Keys      Keys
	Authority Authority
	Sealer    Sealer
	Auth      Authenticator
	Metrics   http.Handler // serves /metrics
	Log       *slog.Logger
	Now       func() time.Time // nil: time.Now
	NewID     func() task.ID
	Version   string

	// Limits bound what callers take. Zero: nothing does.
	Limits Limits
	// Proxies are those whose X-Forwarded-For says where a request came from.
	Proxies []netip.Prefix
	// OutputBudget bounds the bytes of all answers that hold output while
	// they are assembled. Default 64 MiB. Beyond it callers get 503.
	OutputBudget int64
	// CapAdd are the capabilities a task may ask for, upper case and without
	// CAP_. Nil: those Docker gives by itself.
	CapAdd []string
	// V1Memory is what a v1 task gets, in bytes. Default 1 GiB.
	V1Memory int64
	// Traces exports spans. Nil: a caller's trace context is passed on, and
	// nothing is added to it.
	Traces Traces
	// Audit takes who changed what, and who was refused. Nil: nobody does.
	Audit *telemetry.Audit
	// AuditArgv has it take command lines as they are, not as hashes.
	AuditArgv bool
	// Pages serve the dashboard. Nil: there is none.
	Pages Pages
	// Stats takes the handler's own metrics. Nil: none are made.
	Stats *metrics.Metrics
}

// Handler answers the HTTP API of one node.
type Handler struct {
	cfg    Config
	parse  *parser
	codes  map[api.Code]api.CodeInfo
	budget *budget
	gates  *gates
	stats  stats
	audit  auditing

	refusals *sparing // lines of the log

	root     http.Handler // everything, from the outermost on
	router   http.Handler // the routes, behind authentication and limits
	attached attached
	holders  holders
}

// New makes the handler of a node's HTTP port.
func New(cfg Config) *Handler {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.OutputBudget <= 0 {
		cfg.OutputBudget = 64 << 20
	}
	if cfg.CapAdd == nil {
		cfg.CapAdd = defaultCapabilities()
	}
	if cfg.V1Memory <= 0 {
		cfg.V1Memory = task.DefaultV1Memory
	}
	if auth, ok := cfg.Auth.(*Keyring); ok && auth.file != nil {
		auth.file.logTo(cfg.Log)
	}
	h := &Handler{
		cfg:    cfg,
		parse:  &parser{grammar: newGrammar(), capAdd: cfg.CapAdd},
		codes:  codeTable(),
		budget: newBudget(cfg.OutputBudget),
		gates:  newGates(cfg.Limits),
		stats:  stats{sink: cfg.Stats},
		audit:  newAuditing(&cfg),

		refusals: newSparing(),
	}
	h.holders.all = make(map[*holder]struct{})
	h.attached.closing = make(chan struct{})
	router, open := h.routed()
	h.router, h.root = router, h.outermost(router, open)
	return h
}

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.root.ServeHTTP(w, r) }

// Detach sends away everyone who is attached to a task, so that they come back
// to another node, and waits until they are gone. http.Server knows nothing of
// them: their connections are WebSockets.
func (h *Handler) Detach() { h.attached.close() }

// Close is Detach, and says what the audit stream has left out. It is for the end,
// when no request is served any more.
func (h *Handler) Close() {
	h.Detach()
	h.audit.flush(context.Background())
}
