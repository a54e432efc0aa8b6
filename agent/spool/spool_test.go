package spool_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"ecs/agent/spool"
	"ecs/internal/task"
)

const big = 1 << 30

func open(t *testing.T, dir string, limit int64) *spool.Spool {
	t.Helper()
	s, err := spool.Open(dir, limit, discard())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func token(n int) task.Token {
	return task.Token{Task: task.ID(fmt.Sprintf("01task%d", n)), Attempt: 1, Epoch: 7}
}

// noise is n bytes of every value, the same for the same seed.
func noise(seed uint64, n int) []byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func write(t *testing.T, w io.Writer, data []byte, piece int) {
	t.Helper()
	for len(data) > 0 {
		n, err := w.Write(data[:min(piece, len(data))])
		if err != nil || n != min(piece, len(data)) {
			t.Fatalf("got %d, %v from Write, want %d, nil", n, err, min(piece, len(data)))
		}
		data = data[n:]
	}
}

// read gathers a Read and checks that its chunks are in order.
func read(s *spool.Spool, tok task.Token, stream string, offset, limit int64, follow bool) (data []byte, last spool.Chunk, err error) {
	next := offset
	err = s.Read(context.Background(), tok, stream, offset, limit, follow, func(c spool.Chunk) error {
		if c.Offset != next || len(c.Data) > spool.ChunkBytes {
			return fmt.Errorf("got a chunk of %d at %d, want one at %d", len(c.Data), c.Offset, next)
		}
		next += int64(len(c.Data))
		data = append(data, c.Data...)
		last = c
		return nil
	})
	return data, last, err
}

func wantStream(t *testing.T, got task.Stream, wrote, kept []byte) {
	t.Helper()
	if got.Bytes != int64(len(wrote)) || got.Kept != int64(len(kept)) {
		t.Errorf("got %d bytes, %d kept, want %d, %d", got.Bytes, got.Kept, len(wrote), len(kept))
	}
	if got.SHA256 != sha256.Sum256(kept) {
		t.Error("got a hash that is not that of the kept bytes")
	}
	if want := kept[:min(len(kept), task.HeadBytes)]; !bytes.Equal(got.Head, want) {
		t.Errorf("got a head of %d bytes, want the first %d", len(got.Head), len(want))
	}
	if want := len(kept) < len(wrote); got.Truncated != want {
		t.Errorf("got truncated %v, want %v", got.Truncated, want)
	}
}

func TestBytesAreKeptExactly(t *testing.T) {
	const max = 100_000
	sizes := []int{0, 1, task.HeadBytes - 1, task.HeadBytes, task.HeadBytes + 1, spool.ChunkBytes, max - 1, max, max + 1, 3 * max}
	for _, size := range sizes {
		for _, piece := range []int{1 << 20, 4096, 1000, 7} {
			t.Run(fmt.Sprintf("%d by %d", size, piece), func(t *testing.T) {
				dir := t.TempDir()
				s := open(t, dir, big)
				e := s.Create(token(1), max)
				wrote := noise(uint64(size), size)
				kept := wrote[:min(size, max)]
				write(t, e.Stdout(), wrote, piece)
				out, errs := e.Finish()
				wantStream(t, out, wrote, kept)
				wantStream(t, errs, nil, nil)
				if want := size <= task.HeadBytes; e.InHead() != want {
					t.Errorf("got InHead %v, want %v", e.InHead(), want)
				}
				if files, _ := os.ReadDir(dir); len(files) > 0 && e.InHead() {
					t.Errorf("got %d files for output that fits the head, want none", len(files))
				}
				if _, disk := s.Usage(); e.InHead() && disk > 0 {
					t.Errorf("got %d bytes accounted for output that fits the head, want none", disk)
				}
				got, last, err := read(s, token(1), spool.Stdout, 0, 0, false)
				if err != nil || !bytes.Equal(got, kept) {
					t.Fatalf("got %d bytes, %v, want %d equal bytes", len(got), err, len(kept))
				}
				if !last.End || last.Bytes != int64(size) || last.Truncated != (size > max) {
					t.Errorf("got last chunk end %v, bytes %d, truncated %v", last.End, last.Bytes, last.Truncated)
				}
				s.Release(token(1))
				wantEmpty(t, s, dir)
			})
		}
	}
}

func TestFinishIsIdempotentAndFinal(t *testing.T) {
	s := open(t, t.TempDir(), big)
	e := s.Create(token(1), big)
	write(t, e.Stderr(), []byte("one"), 9)
	_, first := e.Finish()
	write(t, e.Stderr(), []byte("two"), 9)
	_, second := e.Finish()
	if second.Bytes != 3 || first.SHA256 != second.SHA256 {
		t.Errorf("got %d bytes after a late write, want 3 and the same hash", second.Bytes)
	}
}

func TestRangesOfAStream(t *testing.T) {
	s := open(t, t.TempDir(), big)
	e := s.Create(token(1), big)
	data := noise(3, 3*spool.ChunkBytes)
	write(t, e.Stdout(), data, 5000)
	e.Finish()
	size := int64(len(data))
	for _, c := range []struct {
		offset, limit int64
		end           bool
	}{
		{0, 10, false}, {task.HeadBytes - 5, 10, false}, {size - 5, 0, true}, {size - 5, 5, true},
		{size - 5, 100, true}, {size, 0, true}, {size + 5, 0, true}, {1, spool.ChunkBytes + 1, false},
	} {
		want := data[min(c.offset, size):]
		if c.limit > 0 {
			want = want[:min(c.limit, int64(len(want)))]
		}
		got, last, err := read(s, token(1), spool.Stdout, c.offset, c.limit, false)
		if err != nil || !bytes.Equal(got, want) || last.End != c.end {
			t.Errorf("read %d at %d: got %d bytes, end %v, %v; want %d, %v", c.limit, c.offset, len(got), last.End, err, len(want), c.end)
		}
	}
}

func TestBadRequestsAreRefused(t *testing.T) {
	s := open(t, t.TempDir(), big)
	s.Create(token(1), big)
	for _, c := range []struct {
		stream        string
		offset, limit int64
	}{{"stdin", 0, 0}, {"", 0, 0}, {spool.Stdout, -1, 0}, {spool.Stdout, 0, -1}} {
		if _, _, err := read(s, token(1), c.stream, c.offset, c.limit, false); !errors.Is(err, spool.ErrRequest) {
			t.Errorf("read %q %d %d: got %v, want ErrRequest", c.stream, c.offset, c.limit, err)
		}
	}
	if _, _, err := read(s, token(2), spool.Stdout, 0, 0, false); !errors.Is(err, spool.ErrLost) {
		t.Errorf("got %v for an unknown attempt, want ErrLost", err)
	}
}

func TestReadOfALiveStreamDoesNotWait(t *testing.T) {
	s := open(t, t.TempDir(), big)
	e := s.Create(token(1), 20_000)
	data := noise(5, 30_000)
	write(t, e.Stdout(), data, 4096)
	got, last, err := read(s, token(1), spool.Stdout, 0, 0, false)
	if err != nil || !bytes.Equal(got, data[:20_000]) {
		t.Fatalf("got %d bytes, %v, want 20000", len(got), err)
	}
	if last.End || last.Bytes != 30_000 || !last.Truncated {
		t.Errorf("got end %v, bytes %d, truncated %v, want false, 30000, true", last.End, last.Bytes, last.Truncated)
	}
}

// A follower begins while everything is in memory, crosses into the file and
// sees the end.
func TestFollowersSeeEveryByteAcrossTheHeadsBorder(t *testing.T) {
	s := open(t, t.TempDir(), big)
	e := s.Create(token(1), big)
	data := noise(9, 5*task.HeadBytes+123)
	var followers sync.WaitGroup
	for i := range 8 {
		offset := int64(i * 1500)
		followers.Go(func() {
			got, last, err := read(s, token(1), spool.Stderr, offset, 0, true)
			if err != nil || !bytes.Equal(got, data[offset:]) || !last.End {
				t.Errorf("from %d: got %d bytes, end %v, %v; want %d", offset, len(got), last.End, err, len(data)-int(offset))
			}
		})
	}
	write(t, e.Stderr(), data, 97)
	e.Finish()
	followers.Wait()
}

func TestFollowStopsAtItsLimit(t *testing.T) {
	s := open(t, t.TempDir(), big)
	e := s.Create(token(1), big)
	write(t, e.Stdout(), noise(1, 100), 100)
	got, last, err := read(s, token(1), spool.Stdout, 0, 40, true)
	if err != nil || len(got) != 40 || last.End {
		t.Errorf("got %d bytes, end %v, %v, want 40 of a live stream", len(got), last.End, err)
	}
}

func TestFollowEndsWithItsContextAndWithSend(t *testing.T) {
	s := open(t, t.TempDir(), big)
	e := s.Create(token(1), big)
	write(t, e.Stdout(), []byte("x"), 1)
	ctx, cancel := context.WithCancel(context.Background())
	err := s.Read(ctx, token(1), spool.Stdout, 0, 0, true, func(spool.Chunk) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
	full := errors.New("full")
	err = s.Read(context.Background(), token(1), spool.Stdout, 0, 0, true, func(spool.Chunk) error { return full })
	if !errors.Is(err, full) {
		t.Errorf("got %v, want send's error", err)
	}
}

func TestAStalledReaderDoesNotStallTheProgram(t *testing.T) {
	s := open(t, t.TempDir(), big)
	e := s.Create(token(1), big)
	stalled, release := make(chan struct{}), make(chan struct{})
	read := make(chan error)
	write(t, e.Stdout(), []byte("first"), 9)
	go func() {
		once := sync.OnceFunc(func() { close(stalled); <-release })
		read <- s.Read(context.Background(), token(1), spool.Stdout, 0, 0, true, func(spool.Chunk) error { once(); return nil })
	}()
	<-stalled
	data := noise(2, 3<<20)
	write(t, e.Stdout(), data, 32<<10)
	out, _ := e.Finish()
	if out.Bytes != int64(len(data)+5) {
		t.Errorf("got %d bytes while a reader stalls, want %d", out.Bytes, len(data)+5)
	}
	close(release)
	if err := <-read; err != nil {
		t.Error(err)
	}
}

func TestReleasedOutputIsGone(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, big)
	for i, size := range []int{10, 100_000} {
		e := s.Create(token(i), big)
		write(t, e.Stdout(), noise(1, size), 8000)
		e.Finish()
		s.Release(token(i))
		s.Release(token(i))
		if _, _, err := read(s, token(i), spool.Stdout, 0, 0, false); !errors.Is(err, spool.ErrLost) {
			t.Errorf("got %v after release, want ErrLost", err)
		}
	}
	wantEmpty(t, s, dir)
}

func wantEmpty(t *testing.T, s *spool.Spool, dir string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 0 {
		t.Errorf("got %d files, %v, want none", len(files), err)
	}
	if entries, disk := s.Usage(); entries != 0 || disk != 0 {
		t.Errorf("got %d entries and %d bytes in use, want none", entries, disk)
	}
}

func TestReleaseOfALiveEntryFreesItAndEndsFollowers(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, big)
	e := s.Create(token(1), big)
	write(t, e.Stdout(), noise(1, 100_000), 8000)
	write(t, e.Stderr(), noise(1, 10), 10)
	began, ended := make(chan struct{}), make(chan error)
	go func() {
		once := sync.OnceFunc(func() { close(began) })
		ended <- s.Read(context.Background(), token(1), spool.Stdout, 0, 0, true, func(spool.Chunk) error { once(); return nil })
	}()
	<-began
	s.Release(token(1))
	if err := <-ended; !errors.Is(err, spool.ErrLost) {
		t.Errorf("got %v, want ErrLost", err)
	}
	e.Secure()
	write(t, e.Stdout(), noise(1, 50_000), 8000)
	write(t, e.Stderr(), noise(1, 50_000), 8000)
	if out, _ := e.Finish(); out.Bytes != 150_000 {
		t.Errorf("got %d bytes counted, want 150000", out.Bytes)
	}
	wantEmpty(t, s, dir)
}

func TestThousandEntriesAtOnce(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, big)
	var all sync.WaitGroup
	for i := range 1000 {
		all.Go(func() {
			out, errs := noise(uint64(i), 3000+i*20), noise(uint64(i)+5000, i)
			e := s.Create(token(i), 20_000)
			var both sync.WaitGroup
			both.Go(func() { write(t, e.Stdout(), out, 1021) })
			both.Go(func() { write(t, e.Stderr(), errs, 100) })
			both.Wait()
			gotOut, gotErr := e.Finish()
			wantStream(t, gotOut, out, out[:min(len(out), 20_000)])
			wantStream(t, gotErr, errs, errs)
			got, _, err := read(s, token(i), spool.Stdout, 0, 0, true)
			if err != nil || !bytes.Equal(got, out[:min(len(out), 20_000)]) {
				t.Errorf("entry %d: got %d bytes, %v, want %d", i, len(got), err, len(out))
			}
			s.Release(token(i))
		})
	}
	all.Wait()
	wantEmpty(t, s, dir)
}

func TestMemoryDoesNotGrowWithOutput(t *testing.T) {
	s := open(t, t.TempDir(), big)
	e := s.Create(token(1), 64<<20)
	piece := noise(1, 32<<10)
	write(t, e.Stdout(), piece, len(piece)) // makes the file
	per := testing.AllocsPerRun(200, func() { write(t, e.Stdout(), piece, len(piece)) })
	if per > 1 {
		t.Errorf("got %.1f allocations per write, want at most 1", per)
	}
}
