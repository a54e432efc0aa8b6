package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"ecs/agent/spool"
	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
	"ecs/proto/ecs/v1/rpc"
)

const (
	// takesAtOnce is how many outputs are fetched from agents that leave at once,
	// and takesWaiting how many orders may wait for that.
	takesAtOnce  = 2
	takesWaiting = 32
	// One is given up after takeWithin, and a second more for every takeRate bytes:
	// before the leader asks another.
	takeWithin = 10 * time.Second
	takeRate   = 1 << 20
)

// takes fetches what agents that leave hand on to this one, as the leader orders.
// Its methods are safe for concurrent use.
type takes struct {
	spool  *spool.Spool
	dial   func(addr string) (*grpc.ClientConn, error) // nil: it takes nothing
	log    *slog.Logger
	orders chan *ecsv1.Take
	ready  chan struct{} // one slot: answer may have something

	mu struct {
		sync.Mutex
		active  map[task.Token]*underway
		answers []*ecsv1.Taken
		cancel  context.CancelFunc // of what runs
		leaving bool
	}
}

// underway is an order that is not answered yet.
type underway struct {
	off    bool               // called off: nothing of it is to stay
	cancel context.CancelFunc // of its work; nil while it waits for that
}

var errCalledOff = errors.New("called off")

func newTakes(cfg *Config) *takes {
	t := &takes{spool: cfg.Spool, dial: cfg.DialAgent, log: cfg.Log, orders: make(chan *ecsv1.Take, takesWaiting), ready: make(chan struct{}, 1)}
	t.mu.active = map[task.Token]*underway{}
	return t
}

// run fetches until ctx ends, or the node leaves.
func (t *takes) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t.mu.Lock()
	t.mu.cancel = cancel
	if t.mu.leaving {
		cancel()
	}
	t.mu.Unlock()
	var workers sync.WaitGroup
	for range takesAtOnce {
		workers.Go(func() { t.work(ctx) })
	}
	workers.Wait()
	for {
		select {
		case m := <-t.orders:
			t.mu.Lock()
			delete(t.mu.active, taskwire.ToToken(m.GetToken()))
			t.answerLocked(m, &ecsv1.Taken{Problem: "this agent leaves, too", Busy: true})
			t.mu.Unlock()
		default:
			return
		}
	}
}

// leave makes the node take nothing more: it is about to hand its own on.
func (t *takes) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.leaving = true
	if t.mu.cancel != nil {
		t.mu.cancel()
	}
}

// order begins to take an output. One that is under way is answered once, for
// whichever leader has asked last.
func (t *takes) order(m *ecsv1.Take) {
	tok := taskwire.ToToken(m.GetToken())
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.mu.active[tok] != nil:
		return
	case t.dial == nil:
		t.answerLocked(m, &ecsv1.Taken{Problem: "this agent takes no output"})
		return
	case t.mu.leaving:
		t.answerLocked(m, &ecsv1.Taken{Problem: "this agent leaves, too", Busy: true})
		return
	}
	select {
	case t.orders <- m:
		t.mu.active[tok] = &underway{}
	default:
		t.answerLocked(m, &ecsv1.Taken{Problem: "too many others wait", Busy: true})
	}
}

// callOff ends an order, or drops what was taken for it: the record says that another
// agent holds that output.
func (t *takes) callOff(tok task.Token) {
	t.mu.Lock()
	u := t.mu.active[tok]
	if u != nil {
		u.off = true
		if u.cancel != nil {
			u.cancel()
		}
	}
	t.mu.Unlock()
	if u == nil {
		t.log.Info("output dropped that another agent holds", "task", tok.Task, "attempt", tok.Attempt)
		t.spool.Release(tok)
	}
}

func (t *takes) answerLocked(m *ecsv1.Take, a *ecsv1.Taken) {
	a.Token, a.Proof = m.GetToken(), taskwire.TakeProof(m)
	t.mu.answers = append(t.mu.answers, a)
	poke(t.ready)
}

// tell gives answers to send, the oldest first, until there are none or one could not
// be sent: that one is for the next session. What was sent on a session that breaks is
// lost, and asked for again.
func (t *takes) tell(send func(*ecsv1.Taken) error) error {
	for {
		t.mu.Lock()
		if len(t.mu.answers) == 0 {
			t.mu.Unlock()
			return nil
		}
		a := t.mu.answers[0]
		t.mu.Unlock()
		if err := send(a); err != nil {
			poke(t.ready)
			return err
		}
		t.mu.Lock()
		t.mu.answers = t.mu.answers[1:] // only one session tells at a time
		t.mu.Unlock()
	}
}

// work takes one output after the other. The connection is kept while there are
// more.
func (t *takes) work(ctx context.Context) {
	var from giver
	defer from.close()
	for {
		var m *ecsv1.Take
		select {
		case m = <-t.orders:
		default:
			from.close()
			select {
			case m = <-t.orders:
			case <-ctx.Done():
				return
			}
		}
		t.carryOut(ctx, &from, m)
	}
}

// carryOut takes one output and answers.
func (t *takes) carryOut(ctx context.Context, from *giver, m *ecsv1.Take) {
	tok := taskwire.ToToken(m.GetToken())
	size := m.GetStdout().GetKept() + m.GetStderr().GetKept() + m.GetOutputs().GetKept()
	ctx, cancel := context.WithTimeout(ctx, takeWithin+time.Duration(size/takeRate)*time.Second)
	defer cancel()
	t.mu.Lock()
	u := t.mu.active[tok]
	u.cancel = cancel
	off := u.off
	t.mu.Unlock()
	err := errCalledOff
	if !off {
		err = t.take(ctx, from, m)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if u.off {
		t.mu.Unlock()
		t.spool.Release(tok) // an order that comes meanwhile gets this one's answer
		t.mu.Lock()
		err = errCalledOff
	}
	delete(t.mu.active, tok)
	t.answerLocked(m, answerFor(err))
	log := t.log.With("task", tok.Task, "attempt", tok.Attempt, "from", m.GetAddr())
	if err == nil {
		log.Info("output taken over", "bytes", size)
	} else {
		log.Warn("output not taken over", "err", err)
	}
}

// answerFor says what became of an order.
func answerFor(err error) *ecsv1.Taken {
	if err == nil {
		return &ecsv1.Taken{}
	}
	return &ecsv1.Taken{Problem: err.Error(), Full: errors.Is(err, spool.ErrFull), Gone: grpcstatus.Code(err) == codes.NotFound,
		Busy: errors.Is(err, spool.ErrBusy) || errors.Is(err, errCalledOff)}
}

func (t *takes) take(ctx context.Context, from *giver, m *ecsv1.Take) error {
	taking, err := t.spool.Take(taskwire.ToToken(m.GetToken()), taskwire.ToTime(m.GetFinishedAt()),
		toHeld(m.GetStdout()), toHeld(m.GetStderr()), toHeld(m.GetOutputs()))
	if err != nil || taking == nil {
		return err
	}
	client, err := from.client(t.dial, m.GetAddr())
	if err != nil {
		taking.Drop()
		return err
	}
	for _, part := range []struct {
		name string
		held *ecsv1.Held
	}{{spool.Stdout, m.GetStdout()}, {spool.Stderr, m.GetStderr()}, {spool.Outputs, m.GetOutputs()}} {
		if part.held.GetKept() == 0 {
			continue
		}
		if err := fetch(ctx, client, m.GetToken(), part.name, taking); err != nil {
			taking.Drop()
			return fmt.Errorf("fetch %s: %w", part.name, err)
		}
	}
	if err := taking.Keep(); err != nil {
		taking.Drop()
		return err
	}
	return nil
}

// fetch reads one stream whole.
func fetch(ctx context.Context, client rpc.OutputClient, tok *ecsv1.Token, stream string, into *spool.Taking) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // frees the other side where this one gives up
	chunks, err := client.Read(ctx, &ecsv1.OutputRequest{Token: tok, Stream: stream})
	if err != nil {
		return err
	}
	for next := int64(0); ; {
		c, err := chunks.Recv()
		if errors.Is(err, io.EOF) {
			return nil // Keep knows whether that was all
		}
		if err != nil {
			return err
		}
		if c.GetOffset() != next {
			return fmt.Errorf("a piece at %d does not follow %d", c.GetOffset(), next)
		}
		if err := into.Write(stream, c.GetData()); err != nil {
			return err
		}
		next += int64(len(c.GetData()))
	}
}

func toHeld(m *ecsv1.Held) spool.Held {
	h := spool.Held{Bytes: m.GetBytes(), Kept: m.GetKept()}
	copy(h.SHA256[:], m.GetSha256())
	return h
}

// giver is the connection to an agent that leaves.
type giver struct {
	addr string
	conn *grpc.ClientConn
}

func (g *giver) client(dial func(string) (*grpc.ClientConn, error), addr string) (rpc.OutputClient, error) {
	if g.conn == nil || g.addr != addr {
		g.close()
		conn, err := dial(addr)
		if err != nil {
			return nil, fmt.Errorf("dial %s: %w", addr, err)
		}
		g.addr, g.conn = addr, conn
	}
	return rpc.NewOutputClient(g.conn), nil
}

func (g *giver) close() {
	if g.conn != nil {
		_ = g.conn.Close() // says only that it was closed before
		g.conn = nil
	}
}
