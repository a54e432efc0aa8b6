package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"ecs/control/place"
	"ecs/control/state"
	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
)

// syncWithin bounds how long a read waits for this node to catch up.
const syncWithin = 5 * time.Second

// Submit commits a task. Its id was drawn before, so that repeating the
// proposal through a change of leader is still one task.
func (s *Server) Submit(ctx context.Context, t *task.Task, quota int) (*task.Task, bool, error) {
	if err := s.possible(ctx, t); err != nil {
		return nil, false, err
	}
	d, err := s.settle(ctx, state.Submit{Task: t, Quota: quota})
	if err != nil {
		return nil, false, fmt.Errorf("submit task %s: %w", t.ID, err)
	}
	if d.Err != nil {
		return nil, false, d.Err
	}
	// A repeat of our own proposal finds the task there: it is not older.
	existed := d.Existed && d.Task.ID != t.ID
	s.cfg.Log.Debug("task accepted", "task", d.Task.ID, "cid", t.CID, "owner", t.Owner, "existed", existed)
	return d.Task, existed, nil
}

// possible refuses a task that no node could ever hold, unless its key names
// one that was accepted when there was such a node. It refuses only on a record
// that holds everything committed before.
func (s *Server) possible(ctx context.Context, t *task.Task) error {
	fits := func() (bool, string) {
		sn := s.store.Snapshot()
		if t.Key != "" && sn.ByKey(t.Owner, t.Key) != nil {
			return true, ""
		}
		return place.Possible(sn, t.Spec)
	}
	if ok, _ := fits(); ok {
		return nil
	}
	if err := s.Sync(ctx); err != nil {
		return fmt.Errorf("look for a node that could hold task %s: %w", t.ID, err)
	}
	if ok, because := fits(); !ok {
		return &task.Error{Code: task.CodeUnschedulable, Message: because}
	}
	return nil
}

// Stop asks for a task to end; owner "" is the operator.
func (s *Server) Stop(ctx context.Context, id task.ID, owner string, outcome task.Outcome, reason string) (*task.Task, error) {
	d, err := s.settle(ctx, state.Stop{Task: id, Outcome: outcome, Reason: reason, Owner: owner})
	if err != nil {
		return nil, fmt.Errorf("stop task %s: %w", id, err)
	}
	if d.Err != nil {
		return nil, d.Err
	}
	s.cfg.Log.Info("task stop asked", "task", id, "outcome", outcome)
	return d.Task, s.applied(ctx, d)
}

// Drain makes a node take nothing new, or take tasks again.
func (s *Server) Drain(ctx context.Context, node task.NodeID, drain bool) (*task.Node, error) {
	d, err := s.settle(ctx, state.SetNode{Node: node, Drain: &drain})
	if err != nil {
		return nil, fmt.Errorf("set drain of node %s: %w", node, err)
	}
	if d.Err != nil {
		return nil, d.Err
	}
	return d.Node, s.applied(ctx, d)
}

// applied waits until this node's own state includes a decision.
func (s *Server) applied(ctx context.Context, d decision) error {
	if d.local {
		return nil
	}
	return s.CatchUp(ctx, d.Index)
}

// CatchUp waits until this node's own state includes an index.
func (s *Server) CatchUp(ctx context.Context, index uint64) error {
	ctx, cancel := context.WithTimeout(ctx, syncWithin)
	defer cancel()
	return s.replica.WaitApplied(ctx, index)
}

// Snapshot is the record as this node has it.
func (s *Server) Snapshot() *state.Snapshot { return s.store.Snapshot() }

// Sync waits until this node has applied everything that was committed before
// the call.
func (s *Server) Sync(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, syncWithin)
	defer cancel()
	index, err := s.readIndexOfSomeLeader(ctx)
	if err != nil {
		return err
	}
	if err := s.replica.WaitApplied(ctx, index); err != nil {
		return fmt.Errorf("catch up to index %d: %w", index, err)
	}
	return nil
}

// CaughtUp reports whether this node ever held, since it started, everything that
// was committed. Before that its record may be of any time, or empty.
func (s *Server) CaughtUp() bool {
	select {
	case <-s.caught:
		return true
	default:
		return false
	}
}

// catchUp has CaughtUp report so, and returns then, or when ctx ends.
func (s *Server) catchUp(ctx context.Context) error {
	select {
	case <-s.replica.Ready():
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		elected := s.replica.LeaderChanged()
		if s.Sync(ctx) == nil {
			close(s.caught)
			if err := s.settleFirstKey(); err != nil {
				s.cfg.Log.Error("the first admin key's file is left as it is", "err", err)
			}
			return nil
		}
		if err := s.pause(ctx, lookForLeader, elected); err != nil {
			return err
		}
	}
}

// readIndexOfSomeLeader asks until some leader answers, or ctx ends: a read waits
// an election out, as a write does.
func (s *Server) readIndexOfSomeLeader(ctx context.Context) (uint64, error) {
	for {
		elected := s.replica.LeaderChanged()
		index, err := s.readIndex(ctx)
		if err == nil {
			return index, nil
		}
		if waited := s.pause(ctx, lookForLeader, elected); waited != nil {
			return 0, err
		}
	}
}

func (s *Server) readIndex(ctx context.Context) (uint64, error) {
	if _, leading, _ := s.replica.Leadership(); leading {
		return s.replica.ReadIndex(ctx)
	}
	leader, _ := s.replica.Leader()
	client, err := s.leaderClient()
	if err != nil {
		return 0, err
	}
	ctx, stop := s.underLeader(ctx, leader)
	defer stop()
	answer, err := client.ReadIndex(ctx, &ecsv1.ReadIndexRequest{})
	if err != nil {
		return 0, fmt.Errorf("ask the leader how far the log is: %w", err)
	}
	if refusal := taskwire.ToError(answer.GetRefusal()); refusal != nil {
		return 0, refusal
	}
	return answer.GetIndex(), nil
}

// Explain says why a pending task waits; only the leader knows which nodes are
// connected, so it is asked.
func (s *Server) Explain(ctx context.Context, id task.ID) (string, int, error) {
	if _, leading, _ := s.replica.Leadership(); leading {
		return s.explainHere(id)
	}
	client, err := s.leaderClient()
	if err != nil {
		return "", 0, err
	}
	answer, err := client.Explain(ctx, &ecsv1.ExplainRequest{Task: string(id)})
	if err != nil {
		return "", 0, fmt.Errorf("ask the leader why task %s waits: %w", id, err)
	}
	if refusal := taskwire.ToError(answer.GetRefusal()); refusal != nil {
		return "", 0, refusal
	}
	return answer.GetBecause(), int(answer.GetPosition()), nil
}

func (s *Server) explainHere(id task.ID) (string, int, error) {
	if _, leading, _ := s.replica.Leadership(); !leading {
		return "", 0, errNoLeader
	}
	sn := s.store.Snapshot()
	hints := s.sessions.Hints()
	because, position := place.Explain(sn, placeHints(sn, hints), id)
	if p := s.placing.Load(); p != nil {
		if held := p.held(sn, id); held != "" {
			because = held
		}
	}
	return because, position, nil
}

// openSecrets opens what was sealed before it entered the log.
func (s *Server) openSecrets(id task.ID, sealed []byte) (task.Secrets, error) {
	plain, err := s.cfg.Seal.Open(sealed, []byte(id))
	if err != nil {
		return task.Secrets{}, err
	}
	var m ecsv1.Secrets
	if err := proto.Unmarshal(plain, &m); err != nil {
		return task.Secrets{}, errors.New("the sealed secrets are not a secrets message")
	}
	return *taskwire.ToSecrets(&m), nil
}
