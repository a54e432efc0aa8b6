package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"ecs/control/replica"
	"ecs/control/state"
	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
)

const (
	// removeWithin bounds how long a node that leaves looks for a leader that
	// takes it out of the configuration.
	removeWithin = 30 * time.Second
	removeAgain  = 250 * time.Millisecond
)

func membership(format string, args ...any) error {
	return &task.Error{Code: task.CodeMembership, Message: fmt.Sprintf(format, args...)}
}

// ErrUnderWay says that the node is leaving or stopping already.
var ErrUnderWay = errors.New("the node is leaving or stopping already")

// errStopping says that the node stopped without having left.
var errStopping = errors.New("the node stopped before it could leave; it is still a member")

// Leave has this node leave the cluster for good, in good order: its health check
// fails, it accepts for DrainFor longer, hands leadership over, gives up its vote,
// finishes what it holds and leaves gossip. say is told of each step; it returns
// with Run, or when the leave was called off.
//
// A leave that would cost the cluster its majority is refused, and nothing
// happens. When it would only by the time the node has drained, it is called off
// and the node serves on. With force the node goes all the same.
func (s *Server) Leave(ctx context.Context, force bool, say func(string)) error {
	s.cfg.Audit.Note(ctx, "leave asked for on this machine", slog.Bool("force", force))
	if err := s.mayLeave(ctx); err != nil && !force {
		return err
	} else if err != nil {
		say("the cluster would refuse: " + err.Error())
	}
	f, ok := s.goodbye.begin(force, say)
	if !ok {
		return ErrUnderWay
	}
	select {
	case <-f.off:
		return f.err
	case <-s.goodbye.done:
		return s.goodbye.outcome()
	case <-ctx.Done():
		return ctx.Err() // it goes on
	}
}

// depart leaves the cluster for good, and reports whether this node is to end. It
// is not when the cluster turned out to need it still; then everything is as it
// was before. Requests are accepted until the others go on without it.
func (s *Server) depart(ctx context.Context, f *farewell) (end bool) {
	f.say(fmt.Sprintf("the health check fails now; accepting requests for %s longer", s.cfg.DrainFor))
	s.drain(ctx)
	err := s.resign(ctx, f)
	switch {
	case err == nil:
		s.goodbye.left = true
		f.say("finishing what is under way and leaving gossip")
		return true
	case ctx.Err() != nil: // something else failed for good
		return true
	case f.force:
		s.goodbye.err = err
		s.cfg.Log.Error("leaving without having been taken out of the configuration", "err", err)
		return true
	}
	s.setDraining(false)
	s.cfg.Log.Error("the leave is called off: the node stays a member and serves on", "err", err)
	s.goodbye.callOff(f, fmt.Errorf("called off, the node stays a member and serves on: %w", err))
	return false
}

// mayLeave asks the leader whether the cluster can do without this node.
func (s *Server) mayLeave(ctx context.Context) error {
	if !s.replica.Admitted() {
		return nil
	}
	if _, leading, _ := s.replica.Leadership(); leading {
		return s.spare(s.cfg.ID)
	}
	return s.askLeader(ctx, &ecsv1.LeaveRequest{Node: s.cfg.ID, Check: true})
}

func (s *Server) askLeader(ctx context.Context, req *ecsv1.LeaveRequest) error {
	client, err := s.leaderClient()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	answer, err := client.Leave(ctx, req)
	if err != nil {
		return fmt.Errorf("ask the leader: %w", err)
	}
	if refusal := taskwire.ToError(answer.GetRefusal()); refusal != nil {
		return refusal
	}
	return nil
}

// spare refuses when the cluster would lose its majority with a control node.
func (s *Server) spare(id string) error {
	voters, alive, spares := 0, 0, 0
	votes := false
	for _, v := range s.replica.Voters() {
		answers := s.answers(v.ID)
		switch {
		case v.ID == id:
			votes = v.Voter
		case v.Voter:
			voters++
			if answers {
				alive++
			}
		case answers && s.caughtUp(v.ID):
			spares++
		}
	}
	switch {
	case !votes:
		return nil
	case voters == 0 && spares == 0:
		return membership("it is the last voter, and no other control node has all of the log: without it there is no cluster. " +
			"Stop the daemon to pause it, or have another control node join and catch up first")
	case voters == 0:
		return nil // a spare gets the vote first
	case 2*alive <= voters:
		return membership("of the %d voters that would be left only %d answer: the cluster would lose its majority. "+
			"Bring the others back, or remove those that are gone for good first (ecsctl leave --node ID --force)", voters, alive)
	}
	return nil
}

// answers reports whether a control node was heard of just now. Only the leader
// knows.
func (s *Server) answers(id string) bool {
	if id == s.cfg.ID {
		return true
	}
	heard, ok := s.replica.Contact(id)
	return ok && heard.Heard < aliveWithin
}

// caughtUp reports whether a control node has nearly all of the log, so that it
// can take over. Only the leader knows.
func (s *Server) caughtUp(id string) bool {
	c, ok := s.replica.Contact(id)
	return ok && c.CaughtUp()
}

// replaceMe gives its vote to another when this node has the only one. The cluster
// would stand still for as long as an heir that is far behind takes to catch up.
func (s *Server) replaceMe(ctx context.Context, f *farewell) error {
	if _, leading, _ := s.replica.Leadership(); !leading || s.heir() == nil {
		return nil // where there is no heir, whoever is asked for the removal says so
	}
	return s.replica.Reconfigure(ctx, func(t *replica.Turn) error {
		heir := s.heir()
		if heir == nil {
			return nil
		}
		f.say("giving the vote to " + heir.ID)
		return t.Promote(heir.ID, heir.Addr)
	})
}

// heir is who of those without a vote is furthest along, when this node has the
// only vote and another can take it over.
func (s *Server) heir() (heir *replica.Voter) {
	var best uint64
	for _, v := range s.replica.Voters() {
		if v.ID == s.cfg.ID {
			continue
		}
		if v.Voter {
			return nil
		}
		if c, ok := s.replica.Contact(v.ID); ok && c.Heard < aliveWithin && c.CaughtUp() && c.Match >= best {
			heir, best = &v, c.Match
		}
	}
	return heir
}

// resign gives up this node's part in the configuration. The leader looks again
// whether the cluster can do without it: much may have happened during the drain.
func (s *Server) resign(ctx context.Context, f *farewell) error {
	if !s.replica.Admitted() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, removeWithin)
	defer cancel()
	f.say("handing leadership and vote over")
	var last error
	for {
		err := s.resignNow(ctx, f)
		if err == nil {
			return nil
		}
		// A refusal too: a new leader has not heard of the others yet. It says more
		// than a call that was cut short.
		var refusal *task.Error
		if errors.As(err, &refusal) || !errors.As(last, &refusal) {
			last = err
		}
		if err := s.pause(ctx, removeAgain, s.replica.LeaderChanged()); err != nil {
			return fmt.Errorf("nobody took the node out of the configuration: %w", last)
		}
	}
}

func (s *Server) resignNow(ctx context.Context, f *farewell) error {
	if err := s.replaceMe(ctx, f); err != nil {
		return fmt.Errorf("give the vote to another: %w", err)
	}
	s.handOver(ctx)
	return s.askLeader(ctx, &ecsv1.LeaveRequest{Node: s.cfg.ID, Removal: true, Force: f.force})
}

// Leave answers a control node that leaves, and one that passes on an operator's
// wish to have a node leave.
func (p *peerServer) Leave(ctx context.Context, req *ecsv1.LeaveRequest) (*ecsv1.LeaveAnswer, error) {
	if err := p.authorize(ctx); err != nil {
		return nil, err
	}
	peer, err := p.s.cfg.Peer(ctx)
	if err != nil {
		return nil, err
	}
	detail := ""
	switch {
	case req.GetCheck(), req.GetRemoval():
		err = p.s.release(ctx, peer.ID, req)
	default:
		detail, err = p.s.sendAway(ctx, req.GetNode(), req.GetForce())
	}
	refusal, err := asRefusal(err)
	if err != nil {
		return nil, err
	}
	answer := &ecsv1.LeaveAnswer{Detail: detail}
	if refusal != nil {
		answer.Refusal = taskwire.FromError(refusal)
	}
	return answer, nil
}

// release takes a control node that asks for it out of the configuration, or says
// whether it would.
func (s *Server) release(ctx context.Context, peer string, req *ecsv1.LeaveRequest) error {
	if _, leading, _ := s.replica.Leadership(); !leading {
		return errNoLeader
	}
	if peer != req.GetNode() {
		return membership("%s may not speak for %s", peer, req.GetNode())
	}
	if req.GetCheck() {
		return s.spare(peer)
	}
	err := s.replica.Reconfigure(ctx, func(t *replica.Turn) error {
		if err := s.spare(peer); err != nil && !req.GetForce() {
			return err
		} else if err != nil {
			s.cfg.Log.Warn("a control node leaves by force", "member", peer, "against", err)
		}
		return t.Remove(peer)
	})
	if err != nil {
		return err
	}
	s.known.forget(peer)
	s.cfg.Log.Info("control node left", "member", peer)
	return nil
}

// Go has this node leave because the leader was asked for it.
func (p *peerServer) Go(ctx context.Context, _ *ecsv1.GoRequest) (*ecsv1.GoAnswer, error) {
	if err := p.authorize(ctx); err != nil {
		return nil, err
	}
	p.s.cfg.Log.Info("asked to leave the cluster")
	p.s.goodbye.begin(false, nil) // or it has begun
	return &ecsv1.GoAnswer{}, nil
}

// SendAway has a node leave, by its id; see api.Cluster.
func (s *Server) SendAway(ctx context.Context, id string, force bool) (string, error) {
	if _, leading, _ := s.replica.Leadership(); leading {
		return s.sendAway(ctx, id, force)
	}
	client, err := s.leaderClient()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	answer, err := client.Leave(ctx, &ecsv1.LeaveRequest{Node: id, Force: force})
	if err != nil {
		return "", fmt.Errorf("ask the leader to have %s leave: %w", id, err)
	}
	if refusal := taskwire.ToError(answer.GetRefusal()); refusal != nil {
		return "", refusal
	}
	return answer.GetDetail(), nil
}

// sendAway has a node leave, as the leader.
func (s *Server) sendAway(ctx context.Context, id string, force bool) (string, error) {
	if _, leading, _ := s.replica.Leadership(); !leading {
		return "", errNoLeader
	}
	for _, v := range s.replica.Voters() {
		if v.ID == id {
			return s.sendControlAway(ctx, v, force)
		}
	}
	n := s.store.Snapshot().Node(task.NodeID(id))
	if n == nil {
		return "", &task.Error{Code: task.CodeNotFound, Message: "there is no such node"}
	}
	if s.sessions.SendAway(ctx, n.ID) {
		return fmt.Sprintf("agent %s takes nothing new, finishes what it runs within its grace, hands its output on and leaves", n.Name), nil
	}
	gone := n.Status == task.Lost || n.Status == task.Left
	switch {
	case !gone:
		return "", membership("agent %s has no session now; it is lost when its lease is over, then --force forgets it", n.Name)
	case !force:
		return "", membership("agent %s is %s and can't be asked: --force forgets it", n.Name, n.Status)
	case n.Attempts > 0:
		return "", membership("agent %s is lost and %d attempts on it may still run until their leases are over; try again then", n.Name, n.Attempts)
	}
	forget := state.ForgetNodes{Nodes: []state.GoneNode{{Node: n.ID, Epoch: n.Epoch}}}
	if err := s.command(ctx, forget, "forget a node"); err != nil {
		return "", err
	}
	return fmt.Sprintf("agent %s is forgotten", n.Name), nil
}

func (s *Server) sendControlAway(ctx context.Context, v replica.Voter, force bool) (string, error) {
	if err := s.spare(v.ID); err != nil {
		return "", err
	}
	if v.ID == s.cfg.ID {
		s.goodbye.begin(false, nil)
		return fmt.Sprintf("control node %s, the leader, drains for %s, hands over and leaves", v.ID, s.cfg.DrainFor), nil
	}
	err := s.askToGo(ctx, v.ID)
	if err == nil {
		return fmt.Sprintf("control node %s drains and leaves", v.ID), nil
	}
	if !force {
		return "", membership("control node %s can't be asked (%v): --force takes it out of the configuration", v.ID, err)
	}
	err = s.replica.Reconfigure(ctx, func(t *replica.Turn) error {
		if err := s.spare(v.ID); err != nil {
			return err // another has failed or left since
		}
		return t.Remove(v.ID)
	})
	if err != nil {
		return "", err
	}
	s.known.forget(v.ID)
	s.cfg.Log.Warn("control node removed by force", "member", v.ID)
	return fmt.Sprintf("control node %s is taken out of the configuration", v.ID), nil
}

func (s *Server) askToGo(ctx context.Context, id string) error {
	addr := s.known.note(s.members.Snapshot())[id].RPCAddr
	if addr == "" {
		return errors.New("gossip never showed it")
	}
	conn, err := s.peers.to(addr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, aliveWithin)
	defer cancel()
	_, err = s.peerClient(conn).Go(ctx, &ecsv1.GoRequest{})
	return err
}
