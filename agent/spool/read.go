package spool

import (
	"context"
	"fmt"
	"os"
)

// Chunk is a piece of a stream.
type Chunk struct {
	Offset int64
	Data   []byte // valid until send returns
	// End: the stream has ended and everything that is kept of it, from the
	// asked offset on, has been sent.
	End bool
	// Truncated and Bytes are set on the last chunk of a Read: whether the
	// program wrote more than is kept, and how much it wrote, as far as known.
	Truncated bool
	Bytes     int64
}

// reader is one Read in progress.
type reader struct {
	from   *stream
	offset int64
	left   int64
	all    bool // left does not count
	follow bool

	file   *os.File // opened when first needed
	buffer []byte
}

func (r *reader) run(ctx context.Context, send func(Chunk) error) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		v := r.from.view(r.offset, r.follow)
		if v.lost {
			return ErrLost
		}
		c := Chunk{Offset: r.offset}
		var err error
		if c.Data, err = r.next(v); err != nil {
			return err
		}
		r.offset += int64(len(c.Data))
		r.left -= int64(len(c.Data))

		caughtUp := r.offset >= v.kept
		last := (!r.all && r.left <= 0) || (caughtUp && (v.ended || !r.follow))
		if last {
			c.End, c.Bytes, c.Truncated = v.ended && caughtUp, v.bytes, v.bytes > v.kept
		}
		if last || len(c.Data) > 0 {
			if err := send(c); err != nil || last {
				return err
			}
			continue
		}
		select {
		case <-v.changed:
		case <-ctx.Done():
		}
	}
}

// next returns the bytes at the offset, at most a chunk of them.
func (r *reader) next(v view) ([]byte, error) {
	n := min(v.kept-r.offset, ChunkBytes)
	if !r.all {
		n = min(n, r.left)
	}
	if n <= 0 {
		return nil, nil
	}
	if r.offset < int64(len(v.head)) {
		return v.head[r.offset:min(r.offset+n, int64(len(v.head)))], nil
	}
	if r.file == nil {
		f, err := os.Open(r.from.record.path(r.from.suffix))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrLost, err)
		}
		r.file, r.buffer = f, make([]byte, ChunkBytes)
	}
	got, err := r.file.ReadAt(r.buffer[:n], r.offset)
	if int64(got) < n {
		return nil, fmt.Errorf("%w: read %d bytes at %d: %w", ErrLost, n, r.offset, err)
	}
	return r.buffer[:got], nil
}

func (r *reader) close() {
	if r.file != nil {
		_ = r.file.Close() // only read from
	}
}

// view is what a reader sees of a stream at one moment.
type view struct {
	head        []byte
	kept, bytes int64
	ended, lost bool
	changed     <-chan struct{} // nil when there is no need to wait
}

// view looks at the stream. A follower that has seen all up to offset gets a
// channel that is closed when there is more to see.
func (s *stream) view(offset int64, follow bool) view {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := view{
		head:  s.mu.head[:len(s.mu.head):len(s.mu.head)],
		kept:  s.mu.kept,
		bytes: s.mu.bytes,
		ended: s.mu.ended,
		lost:  s.mu.lost,
	}
	if follow && offset >= v.kept && !v.ended && !v.lost {
		if s.mu.changed == nil {
			s.mu.changed = make(chan struct{})
		}
		v.changed = s.mu.changed
	}
	return v
}
