package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"ecs/agent/output"
	"ecs/agent/spool"
	"ecs/internal/pki"
	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
	"ecs/proto/ecs/v1/rpc"
)

func bytesOf(n int, seed byte) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*7%251) + seed
	}
	return p
}

func spoolIn(t *testing.T, dir string) *spool.Spool {
	t.Helper()
	s, err := spool.Open(dir, 64<<20, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// leavers serve output by the name that an order gives as the address.
type leavers struct {
	t         *testing.T
	listeners map[string]*bufconn.Listener
	servers   map[string]*grpc.Server
}

func newLeavers(t *testing.T) *leavers {
	return &leavers{t: t, listeners: map[string]*bufconn.Listener{}, servers: map[string]*grpc.Server{}}
}

func (l *leavers) serve(name string, srv rpc.OutputServer) {
	listener, server := bufconn.Listen(1<<20), grpc.NewServer()
	rpc.RegisterOutputServer(server, srv)
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.Serve(listener) }()
	l.t.Cleanup(func() { server.Stop(); <-ended })
	l.listeners[name], l.servers[name] = listener, server
}

func (l *leavers) dial(addr string) (*grpc.ClientConn, error) {
	listener := l.listeners[addr]
	if listener == nil {
		return nil, fmt.Errorf("nobody is at %s", addr)
	}
	return grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
}

// scripted serves what it is told to.
type scripted struct {
	rpc.UnimplementedOutputServer
	read func(*ecsv1.OutputRequest, grpc.ServerStreamingServer[ecsv1.OutputChunk]) error
}

func (s *scripted) Read(q *ecsv1.OutputRequest, to grpc.ServerStreamingServer[ecsv1.OutputChunk]) error {
	return s.read(q, to)
}

// taker is a takes that runs.
type taker struct {
	*takes
	t   *testing.T
	end func() // of the process
}

func taking(t *testing.T, s *spool.Spool, from *leavers) *taker {
	ctx, cancel := context.WithCancel(t.Context())
	r := &taker{t: t, takes: newTakes(&Config{Spool: s, DialAgent: from.dial, Log: slog.New(slog.DiscardHandler)})}
	ended := make(chan struct{})
	go func() { defer close(ended); r.run(ctx) }()
	r.end = func() { s.Abandon(); cancel(); <-ended }
	t.Cleanup(func() { cancel(); <-ended })
	return r
}

// await waits for the next answer.
func (r *taker) await() *ecsv1.Taken {
	r.t.Helper()
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	for {
		var got *ecsv1.Taken
		if err := r.tell(func(a *ecsv1.Taken) error {
			if got != nil {
				return errors.New("one is enough")
			}
			got = a
			return nil
		}); got != nil {
			_ = err // there are more
			return got
		}
		select {
		case <-r.ready:
		case <-limit.C:
			r.t.Fatal("got no answer")
		}
	}
}

func heldBy(p []byte) *ecsv1.Held {
	sum := sha256.Sum256(p)
	return &ecsv1.Held{Bytes: int64(len(p)), Kept: int64(len(p)), Sha256: sum[:]}
}

func takeOf(id, from string, out []byte) *ecsv1.Take {
	tok := task.Token{Task: task.ID(id), Attempt: 1, Epoch: 3}
	return &ecsv1.Take{Token: taskwire.FromToken(tok), Addr: from, FinishedAt: taskwire.FromTime(time.Now().Add(-time.Minute)), Stdout: heldBy(out)}
}

func wantWhole(t *testing.T, s *spool.Spool, m *ecsv1.Take, stream string, want []byte) {
	t.Helper()
	var got bytes.Buffer
	err := s.Read(t.Context(), taskwire.ToToken(m.GetToken()), stream, 0, 0, false, func(c spool.Chunk) error { got.Write(c.Data); return nil })
	if err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%s of %s: got %d bytes, %v, want %d", stream, m.GetToken().GetTask(), got.Len(), err, len(want))
	}
}

func wantNothing(t *testing.T, s *spool.Spool, dir string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if n, disk := s.Usage(); err != nil || n != 0 || disk != 0 || len(files) != 0 {
		t.Errorf("got %d entries, %d bytes, the files %v, %v; want nothing", n, disk, files, err)
	}
}

// finished puts an attempt's output into the spool of an agent that leaves.
func finished(t *testing.T, s *spool.Spool, m *ecsv1.Take, out []byte) {
	t.Helper()
	e := s.Create(taskwire.ToToken(m.GetToken()), 16<<20)
	if _, err := e.Stdout().Write(out); err != nil {
		t.Fatal(err)
	}
	e.Finish()
}

// What was said to be taken is there without the agent that left, also after a
// restart of the one that took it.
func TestWhatWasTakenOutlivesBoth(t *testing.T) {
	from, dir := newLeavers(t), t.TempDir()
	source := spoolIn(t, t.TempDir())
	leaver := &Agent{handover: newHandover()}
	close(leaver.handover.asked)
	caller := pki.Identity{Role: pki.RoleAgent, ID: "taker"}
	from.serve("leaver", output.New(source, &output.Guard{Grants: leaver,
		Peer: func(context.Context) (pki.Identity, error) { return caller, nil }}))
	out := bytesOf(3<<20, 1)
	m := takeOf("t1", "leaver", out)
	finished(t, source, m, out)
	s := spoolIn(t, dir)
	r := taking(t, s, from)
	leaver.handover.grant(&ecsv1.Grant{Token: m.GetToken(), Node: "taker"})
	r.order(m)
	r.order(m) // is answered with the first
	if a := r.await(); a.GetProblem() != "" || a.GetToken().GetTask() != "t1" {
		t.Fatalf("got %v, want it taken", a)
	}
	r.order(m)
	if a := r.await(); a.GetProblem() != "" {
		t.Errorf("ordered again: got %v, want it to be here", a)
	}
	from.servers["leaver"].Stop()
	wantWhole(t, s, m, spool.Stdout, out)
	r.end()
	s = spoolIn(t, dir)
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	wantWhole(t, s, m, spool.Stdout, out)
}

// Every way of coming to nothing says so, as what it is, and leaves nothing.
func TestWhatDoesNotComeWholeIsNotTaken(t *testing.T) {
	out := bytesOf(100_000, 2)
	send := func(to grpc.ServerStreamingServer[ecsv1.OutputChunk], at int64, p []byte) error {
		return to.Send(&ecsv1.OutputChunk{Offset: at, Data: p})
	}
	killed := make(chan struct{}, 1)
	for name, tc := range map[string]struct {
		read func(to grpc.ServerStreamingServer[ecsv1.OutputChunk]) error
		says string
		gone bool
	}{
		"corrupt": {func(to grpc.ServerStreamingServer[ecsv1.OutputChunk]) error {
			bad := bytes.Clone(out)
			bad[len(bad)/2]++
			return send(to, 0, bad)
		}, "another hash", false},
		"short": {func(to grpc.ServerStreamingServer[ecsv1.OutputChunk]) error { return send(to, 0, out[:99_999]) }, "99999 bytes came of 100000", false},
		"long": {func(to grpc.ServerStreamingServer[ecsv1.OutputChunk]) error {
			return send(to, 0, append(bytes.Clone(out), 1))
		}, "more than 100000", false},
		"a hole": {func(to grpc.ServerStreamingServer[ecsv1.OutputChunk]) error {
			if err := send(to, 0, out[:1000]); err != nil {
				return err
			}
			return send(to, 2000, out[2000:])
		}, "does not follow", false},
		"not there": {func(grpc.ServerStreamingServer[ecsv1.OutputChunk]) error {
			return grpcstatus.Error(codes.NotFound, "lost")
		}, "lost", true},
		"not allowed": {func(grpc.ServerStreamingServer[ecsv1.OutputChunk]) error {
			return grpcstatus.Error(codes.PermissionDenied, "no")
		}, "PermissionDenied", false},
		"killed in the middle": {func(to grpc.ServerStreamingServer[ecsv1.OutputChunk]) error {
			err := send(to, 0, out[:50_000])
			killed <- struct{}{}
			<-to.Context().Done()
			return err
		}, "Unavailable", false},
	} {
		t.Run(name, func(t *testing.T) {
			from, dir := newLeavers(t), t.TempDir()
			from.serve("leaver", &scripted{read: func(_ *ecsv1.OutputRequest, to grpc.ServerStreamingServer[ecsv1.OutputChunk]) error {
				return tc.read(to)
			}})
			s := spoolIn(t, dir)
			r := taking(t, s, from)
			r.order(takeOf("t1", "leaver", out))
			if name == "killed in the middle" {
				<-killed
				from.servers["leaver"].Stop()
			}
			a := r.await()
			if !strings.Contains(a.GetProblem(), tc.says) || a.GetGone() != tc.gone || a.GetFull() || a.GetBusy() {
				t.Errorf("got %v, want %q, gone %t", a, tc.says, tc.gone)
			}
			wantNothing(t, s, dir)
			r.order(takeOf("t2", "nowhere", out))
			if a := r.await(); a.GetProblem() == "" || a.GetGone() {
				t.Errorf("of nobody: got %v", a)
			}
			wantNothing(t, s, dir)
		})
	}
}

// half serves half of an output and waits; the rest comes once it is told to go on.
func half(out []byte, began chan<- struct{}, goOn <-chan struct{}) *scripted {
	return &scripted{read: func(_ *ecsv1.OutputRequest, to grpc.ServerStreamingServer[ecsv1.OutputChunk]) error {
		if err := to.Send(&ecsv1.OutputChunk{Data: out[:len(out)/2]}); err != nil {
			return err
		}
		select {
		case began <- struct{}{}:
		case <-to.Context().Done():
			return to.Context().Err()
		}
		select {
		case <-goOn:
		case <-to.Context().Done():
			return to.Context().Err()
		}
		return to.Send(&ecsv1.OutputChunk{Offset: int64(len(out) / 2), Data: out[len(out)/2:]})
	}}
}

func TestAReceiverThatRestartsWithHalfOfItTakesItAnew(t *testing.T) {
	out, from, dir := bytesOf(100_000, 3), newLeavers(t), t.TempDir()
	began, goOn := make(chan struct{}), make(chan struct{})
	from.serve("leaver", half(out, began, goOn))
	s := spoolIn(t, dir)
	r := taking(t, s, from)
	m := takeOf("t1", "leaver", out)
	r.order(m)
	<-began
	for limit := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if files, err := filepath.Glob(filepath.Join(dir, "*.stdout")); err != nil || len(files) > 0 || time.Now().After(limit) {
			break
		}
	}
	r.end()
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Fatalf("got the files %v, %v, want half of one", files, err)
	}
	s = spoolIn(t, dir)
	if n, _ := s.Usage(); n != 0 {
		t.Errorf("got %d entries of half an output, want none", n)
	}
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	wantNothing(t, s, dir)
	r = taking(t, s, from)
	r.order(m)
	<-began
	close(goOn)
	if a := r.await(); a.GetProblem() != "" {
		t.Fatalf("got %v, want it taken", a)
	}
	wantWhole(t, s, m, spool.Stdout, out)
}

func TestAReceiverWithEnoughToDoSaysSo(t *testing.T) {
	out, from, dir := bytesOf(10_000, 4), newLeavers(t), t.TempDir()
	began, goOn := make(chan struct{}), make(chan struct{})
	from.serve("leaver", half(out, began, goOn))
	s := spoolIn(t, dir)
	r := taking(t, s, from)
	order := func(i int) { r.order(takeOf(fmt.Sprintf("t%d", i), "leaver", out)) }
	for i := range takesAtOnce {
		order(i)
		<-began
	}
	for i := range takesWaiting {
		order(takesAtOnce + i)
	}
	order(99)
	if a := r.await(); !a.GetBusy() || a.GetToken().GetTask() != "t99" {
		t.Errorf("got %v, want the last to wait for another time", a)
	}
	go func() { // lets all of them begin
		for range takesWaiting {
			<-began
		}
	}()
	close(goOn)
	for range takesAtOnce + takesWaiting {
		if a := r.await(); a.GetProblem() != "" {
			t.Errorf("got %v, want what waited taken", a)
		}
	}
	r.leave()
	order(100)
	if a := r.await(); !a.GetBusy() {
		t.Errorf("got %v of one that leaves, want it refused", a)
	}
}

func TestTwoThatLeaveHandLargeOutputToOne(t *testing.T) {
	const size, each = 4 << 20, 4
	from, dir := newLeavers(t), t.TempDir()
	s := spoolIn(t, dir)
	r := taking(t, s, from)
	orders, outs := map[string]*ecsv1.Take{}, map[string][]byte{}
	for i, name := range []string{"first", "second"} {
		source := spoolIn(t, t.TempDir())
		from.serve(name, output.New(source, nil))
		for k := range each {
			id := fmt.Sprintf("%s%d", name, k)
			outs[id] = bytesOf(size, byte(i*each+k))
			orders[id] = takeOf(id, name, outs[id])
			finished(t, source, orders[id], outs[id])
		}
	}
	for _, m := range orders {
		r.order(m)
	}
	for range orders {
		if a := r.await(); a.GetProblem() != "" {
			t.Errorf("got %v, want it taken", a)
		}
	}
	for id, m := range orders {
		wantWhole(t, s, m, spool.Stdout, outs[id])
	}
	if n, disk := s.Usage(); n != len(orders) || disk != int64(len(orders)*size) {
		t.Errorf("got %d entries of %d bytes", n, disk)
	}
}

func TestCalledOffOrdersLeaveNothing(t *testing.T) {
	out, from, dir := bytesOf(10_000, 5), newLeavers(t), t.TempDir()
	began, goOn := make(chan struct{}), make(chan struct{})
	from.serve("leaver", half(out, began, goOn))
	s := spoolIn(t, dir)
	r := taking(t, s, from)
	var orders []*ecsv1.Take
	for i := range takesAtOnce + 1 {
		orders = append(orders, takeOf(fmt.Sprintf("t%d", i), "leaver", out))
		r.order(orders[i])
		if i < takesAtOnce {
			<-began
		}
	}
	// One that waits, and then one in the middle: another may begin.
	waits, works := orders[takesAtOnce], orders[0]
	r.callOff(taskwire.ToToken(waits.GetToken()))
	r.callOff(taskwire.ToToken(works.GetToken()))
	for range 2 {
		if a := r.await(); !a.GetBusy() || a.GetToken().GetTask() == orders[1].GetToken().GetTask() {
			t.Errorf("got %v, want it called off", a)
		}
	}
	close(goOn)
	if a := r.await(); a.GetProblem() != "" {
		t.Errorf("got %v, want the other one taken", a)
	}
	wantWhole(t, s, orders[1], spool.Stdout, out)
	r.callOff(taskwire.ToToken(orders[1].GetToken()))
	wantNothing(t, s, dir)
}

// An answer that could not be sent is the next session's to send.
func TestAnswersOutliveTheirSession(t *testing.T) {
	r := newTakes(&Config{Log: slog.New(slog.DiscardHandler)}) // it takes nothing
	for _, id := range []string{"t1", "t2"} {
		r.order(&ecsv1.Take{Token: &ecsv1.Token{Task: id, Attempt: 1, Epoch: 1}})
	}
	<-r.ready
	broken := errors.New("broken")
	if err := r.tell(func(*ecsv1.Taken) error { return broken }); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	select {
	case <-r.ready:
	default:
		t.Fatal("the next session is not told that there are answers")
	}
	var told []string
	if err := r.tell(func(a *ecsv1.Taken) error { told = append(told, a.GetToken().GetTask()); return nil }); err != nil || len(told) != 2 {
		t.Errorf("got %v, %v; want both", told, err)
	}
}
