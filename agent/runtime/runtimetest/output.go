package runtimetest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"strconv"
	"sync"
	"testing"
	"time"
)

func outputIsExact(t *testing.T, h Harness) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for _, tt := range []struct {
		name           string
		script         []string
		stdout, stderr string
	}{
		{"empty", []string{"exit", "0"}, "", ""},
		{"no newline at the end", []string{"print", "a b"}, "a b", ""},
		{"both streams", []string{"print", "out", ";", "eprint", "err"}, "out", "err"},
		{"every byte", []string{"bytes"}, string(all), ""},
		{"lines", []string{"echo", "one", ";", "echo", "two"}, "one\ntwo\n", ""},
		{"of a program that fails", []string{"print", "so far", ";", "exit", "3"}, "so far", ""},
	} {
		a, _ := run(t, h, tt.script...)
		if got := a.stdout.kept.String(); got != tt.stdout {
			t.Errorf("%s: stdout: got %q, want %q", tt.name, got, tt.stdout)
		}
		if got := a.stderr.kept.String(); got != tt.stderr {
			t.Errorf("%s: stderr: got %q, want %q", tt.name, got, tt.stderr)
		}
	}
}

func linesStayInOrder(t *testing.T, h Harness) {
	const lines = 100_000
	var want [2]bytes.Buffer
	for i := range lines {
		fmt.Fprintf(&want[i%2], "line %d\n", i)
	}
	a := create(t, h, spec(h, "lines", strconv.Itoa(lines)))
	a.stdout.cap, a.stderr.cap = want[0].Len()+1, want[1].Len()+1
	a.start()
	exit := a.exit()
	a.remove()
	if exit.Code != 0 {
		t.Errorf("got %+v, want code 0", exit)
	}
	if !bytes.Equal(a.stdout.kept.Bytes(), want[0].Bytes()) {
		t.Errorf("stdout: got %d bytes that differ, want %d", a.stdout.bytes, want[0].Len())
	}
	if !bytes.Equal(a.stderr.kept.Bytes(), want[1].Bytes()) {
		t.Errorf("stderr: got %d bytes that differ, want %d", a.stderr.bytes, want[1].Len())
	}
}

func outputBeyondTheCap(t *testing.T, h Harness) {
	const size = 50 << 20
	a, exit := run(t, h, "spew", strconv.Itoa(size), ";", "exit", "5")
	if exit.Code != 5 || exit.Interrupted != "" {
		t.Errorf("got %+v, want code 5", exit)
	}
	if a.stdout.bytes != size || a.stdout.kept.Len() != a.stdout.cap {
		t.Errorf("got %d bytes with %d kept, want %d with %d", a.stdout.bytes, a.stdout.kept.Len(), size, a.stdout.cap)
	}
	if got, want := a.stdout.hash.Sum(nil), spewHash(size); !bytes.Equal(got, want) {
		t.Errorf("hash: got %x, want %x", got, want)
	}
}

// stalledReader has whoever reads the sink stand still around the program's
// end, with as much output as an engine holds back when its reader does: there
// Docker's own attach loses the tail.
func stalledReader(t *testing.T, h Harness) {
	const stall = 6 * time.Second
	var all sync.WaitGroup
	for _, size := range []int{1_300_000, 1_350_000, 1_400_000, 1_500_000} {
		all.Go(func() {
			downstream := &stalled{stall: stall, hash: sha256.New()}
			relay := newRelay(downstream)
			a := prepare(t, h)
			if err := a.create(spec(h, "spew", strconv.Itoa(size)), relay); err != nil {
				t.Errorf("create: %v", err)
				return
			}
			began := time.Now()
			if err := a.c.Start(a.ctx); err != nil {
				t.Errorf("start: %v", err)
			} else if exit, err := a.wait(); err != nil || exit.Code != 0 {
				t.Errorf("got %+v, %v; want code 0", exit, err)
			}
			took := time.Since(began)
			a.remove()
			relay.close()
			if downstream.bytes != size || !bytes.Equal(downstream.hash.Sum(nil), spewHash(size)) {
				t.Errorf("%d bytes: got %d, or others", size, downstream.bytes)
			}
			if took >= stall {
				t.Errorf("%d bytes: the program took %s, as long as its reader stood still", size, took)
			}
		})
	}
	all.Wait()
}

// spewHash is the hash of what the step spew writes.
func spewHash(size int) []byte {
	const period = 251
	hash := sha256.New()
	block := make([]byte, 0, period*256)
	for i := range cap(block) {
		block = append(block, byte(i%period))
	}
	for size > 0 {
		n := min(size, len(block))
		hash.Write(block[:n])
		size -= n
	}
	return hash.Sum(nil)
}

// relay is a sink that takes everything at once and passes it on at the pace of
// whoever reads behind it.
type relay struct {
	mu      sync.Mutex
	more    *sync.Cond
	pending []byte
	ended   bool
	done    chan struct{}
}

func newRelay(to io.Writer) *relay {
	r := &relay{done: make(chan struct{})}
	r.more = sync.NewCond(&r.mu)
	go func() {
		defer close(r.done)
		for {
			r.mu.Lock()
			for len(r.pending) == 0 && !r.ended {
				r.more.Wait()
			}
			next := r.pending
			r.pending = nil
			r.mu.Unlock()
			if len(next) == 0 {
				return
			}
			to.Write(next)
		}
	}()
	return r
}

func (r *relay) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending = append(r.pending, b...)
	r.more.Signal()
	return len(b), nil
}

// close waits until everything has been passed on.
func (r *relay) close() {
	r.mu.Lock()
	r.ended = true
	r.more.Signal()
	r.mu.Unlock()
	<-r.done
}

// stalled is a reader that stands still once, at the first byte.
type stalled struct {
	stall time.Duration
	bytes int
	hash  hash.Hash
}

func (s *stalled) Write(b []byte) (int, error) {
	if s.bytes == 0 {
		time.Sleep(s.stall) // what is tested is that nobody waits for it
	}
	s.bytes += len(b)
	return s.hash.Write(b)
}
