package main

import (
	"context"
	"sync"

	"google.golang.org/grpc"

	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
	"ecs/test/chaos/check"
)

const (
	mostStale  = 100 // statuses that are kept
	staleTimes = 3   // how often each of them is said in the next registration
)

// gossipmonger has an agent say things that are no longer so: after each new
// registration it says of the attempts of earlier ones, which had not ended when
// the agent last spoke of them, that they ended now. A good agent forgets them;
// the record must not depend on that (S4). It does so inside the stream, between
// what the agent itself says.
type gossipmonger struct {
	mu      sync.Mutex
	running map[task.Token]bool   // of this registration, as far as is known
	stale   []*ecsv1.AgentMessage // to be said, several times
}

// option has every session of an agent go through it.
func (g *gossipmonger) option() grpc.DialOption {
	g.running = make(map[task.Token]bool)
	return grpc.WithChainStreamInterceptor(func(ctx context.Context, d *grpc.StreamDesc, conn *grpc.ClientConn, method string,
		open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
		s, err := open(ctx, d, conn, method, options...)
		return &overheard{s, g}, err
	})
}

type overheard struct {
	grpc.ClientStream
	g *gossipmonger
}

// SendMsg implements grpc.ClientStream. The agent sends from one goroutine, and so
// does what is said here.
func (s *overheard) SendMsg(m any) error {
	if err := s.ClientStream.SendMsg(m); err != nil {
		return err
	}
	if said, ok := m.(*ecsv1.AgentMessage); ok {
		for _, more := range s.g.after(said) {
			if err := s.ClientStream.SendMsg(more); err != nil {
				return err
			}
		}
	}
	return nil
}

// RecvMsg implements grpc.ClientStream.
func (s *overheard) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if heard, ok := m.(*ecsv1.ControlMessage); ok && err == nil && heard.GetStatus().GetFinal() {
		s.g.mu.Lock()
		defer s.g.mu.Unlock()
		delete(s.g.running, taskwire.ToToken(heard.GetStatus().GetToken()))
	}
	return err
}

// after notes what an agent said, and gives what is to be said then.
func (g *gossipmonger) after(m *ecsv1.AgentMessage) (more []*ecsv1.AgentMessage) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case m.GetHello() != nil && m.GetHello().GetEpoch() == 0:
		claimed := make(map[task.Token]bool) // those with a longer lease live on
		for _, tok := range m.GetHello().GetRunning() {
			claimed[taskwire.ToToken(tok)] = true
		}
		for tok := range g.running {
			if claimed[tok] {
				continue
			}
			delete(g.running, tok)
			for range staleTimes {
				g.stale = append(g.stale, ended(tok))
			}
		}
		g.stale = g.stale[max(0, len(g.stale)-mostStale):]
	case m.GetStatus() != nil && len(g.running) < mostStale:
		g.running[taskwire.ToToken(m.GetStatus().GetToken())] = true
	case m.GetHeartbeat() != nil: // the registration is committed, and its attempts elsewhere soon
		n := (len(g.stale) + staleTimes - 1) / staleTimes
		more, g.stale = g.stale[:n:n], g.stale[n:]
	}
	return more
}

// ended says that an attempt exited as no program here does.
func ended(tok task.Token) *ecsv1.AgentMessage {
	return &ecsv1.AgentMessage{Kind: &ecsv1.AgentMessage_Status{Status: &ecsv1.AttemptStatus{Token: taskwire.FromToken(tok),
		Result: &ecsv1.Result{Outcome: "exited", ExitCode: check.StaleExit, HasExit: true}}}}
}
