package control

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/status"

	"ecs/control/api"
	"ecs/internal/pki"
	"ecs/internal/task"
	"ecs/internal/telemetry"
	ecsv1 "ecs/proto/ecs/v1"
	"ecs/proto/ecs/v1/rpc"
)

const (
	// logsWithin is how long a node may take to give its lines.
	logsWithin = 3 * time.Second
	// logsAllWithin bounds the gathering from all of them.
	logsAllWithin = 10 * time.Second
	// logsAtOnce is how many nodes are asked at the same time.
	logsAtOnce = 64
	// maxLogBytes bounds the lines of one answer.
	maxLogBytes = 4 << 20
)

// source is one node whose lines are asked for.
type source struct {
	id, role string
	addr     string // empty: this node
	conns    *connections
}

// Logs gathers the lines of one correlation id from every node there is.
func (s *Server) Logs(ctx context.Context, search api.LogSearch) api.LogsFound {
	ctx, cancel := context.WithTimeout(ctx, logsAllWithin)
	defer cancel()
	sources := s.sources()
	g := gathering{search: search, own: s.owned(search.Owner)}
	g.found.Asked = len(sources)
	ask := &ecsv1.LogRequest{Cid: search.CID, Owner: search.Owner, Lines: uint32(search.Lines), Bytes: telemetry.MaxLogBytes}
	var all errgroup.Group
	all.SetLimit(logsAtOnce)
	for _, from := range sources {
		all.Go(func() error {
			answer, err := s.askForLogs(ctx, from, ask)
			g.take(from, answer, err)
			return nil
		})
	}
	_ = all.Wait() // every error is in what was found
	return g.result()
}

// sources are this node, the other control nodes that gossip ever showed, and
// every agent that is not gone.
func (s *Server) sources() []source {
	list := []source{{id: s.cfg.ID, role: string(pki.RoleControl)}}
	for id, m := range s.known.note(s.members.Snapshot()) {
		if id != s.cfg.ID {
			list = append(list, source{id: id, role: string(pki.RoleControl), addr: m.RPCAddr, conns: s.peers})
		}
	}
	for n := range s.store.Snapshot().Nodes() {
		if n.OutputAddr != "" && n.Status != task.Left {
			list = append(list, source{id: string(n.ID), role: string(pki.RoleAgent), addr: n.OutputAddr, conns: s.outputs})
		}
	}
	return list
}

func (s *Server) askForLogs(ctx context.Context, from source, ask *ecsv1.LogRequest) (*ecsv1.LogAnswer, error) {
	if from.addr == "" {
		return telemetry.FindLogs(s.cfg.Recent, ask), nil
	}
	ctx, cancel := context.WithTimeout(ctx, logsWithin)
	defer cancel()
	conn, err := from.conns.to(from.addr)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", from.addr, err)
	}
	return rpc.NewLogsClient(conn).Find(ctx, ask)
}

// owned says whether a task is the owner's, by the record. A line that names a
// task and nobody is shown only then.
func (s *Server) owned(owner string) func(task.ID) bool {
	sn := s.store.Snapshot()
	return func(id task.ID) bool {
		t := sn.Task(id)
		return owner == "" || t != nil && t.Owner == owner
	}
}

// gathering puts together what many nodes say.
type gathering struct {
	search api.LogSearch
	own    func(task.ID) bool

	mu    sync.Mutex
	lines []logLine
	found api.LogsFound
}

type logLine struct {
	at   time.Time
	text []byte
}

func (g *gathering) take(from source, answer *ecsv1.LogAnswer, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil {
		g.found.Silent = append(g.found.Silent, api.Silent{Node: from.id, Role: from.role, Detail: status.Convert(err).Message()})
		return
	}
	g.found.Cut = g.found.Cut || answer.GetCut()
	for _, text := range answer.GetLines() {
		h, ok := telemetry.HeadOf(text)
		if ok && g.asked(h) {
			g.lines = append(g.lines, logLine{h.Time, text})
		}
	}
	g.trim()
}

// asked reports whether a line is one that the caller may have: who has a node's
// certificate could answer with any.
func (g *gathering) asked(h telemetry.Head) bool {
	if h.CID != g.search.CID {
		return false
	}
	return g.search.Owner == "" || h.Owner == g.search.Owner || h.Owner == "" && g.own(task.ID(h.Task))
}

// trim keeps the newest lines that the answer may hold, in their order.
func (g *gathering) trim() {
	slices.SortStableFunc(g.lines, func(a, b logLine) int { return a.at.Compare(b.at) })
	first, size := len(g.lines), 0
	for first > 0 && len(g.lines)-first < g.search.Lines && size+len(g.lines[first-1].text) <= maxLogBytes {
		first--
		size += len(g.lines[first].text)
	}
	g.found.Cut = g.found.Cut || first > 0
	g.lines = append(g.lines[:0:0], g.lines[first:]...)
}

func (g *gathering) result() api.LogsFound {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, l := range g.lines {
		g.found.Lines = append(g.found.Lines, l.text)
	}
	slices.SortFunc(g.found.Silent, func(a, b api.Silent) int { return strings.Compare(a.Node, b.Node) })
	return g.found
}
