package main

import (
	"golang.org/x/sys/unix"

	"ecs/internal/initwire"
)

// ring holds the bytes of a stream from base to end. Its size is a power of two.
type ring struct {
	buf       []byte
	base, end int64
}

// newRing makes a stream's buffer. It is not the garbage collector's, which would
// set to work for its size at the moment that the program begins.
func newRing() []byte {
	buf, err := unix.Mmap(-1, 0, initwire.Ring, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return make([]byte, initwire.Ring)
	}
	return buf
}

// room is where the next bytes go; it is empty when the ring is full. Where it
// ends at the buffer's end there may be more room at its beginning.
func (r *ring) room() []byte {
	size := int64(len(r.buf))
	if size == 0 {
		return nil
	}
	at := r.end & (size - 1)
	return r.buf[at:min(size, at+size-(r.end-r.base))]
}

// slice gives the bytes from an offset on, at most so many, in two parts.
func (r *ring) slice(from int64, most int) (data, more []byte) {
	n := min(r.end-from, int64(most))
	if n <= 0 {
		return nil, nil
	}
	size := int64(len(r.buf))
	at := from & (size - 1)
	if at+n <= size {
		return r.buf[at : at+n], nil
	}
	return r.buf[at:], r.buf[:at+n-size]
}

// put copies bytes in; what does not fit stays out.
func (r *ring) put(p []byte) int {
	total := 0
	for len(p) > 0 {
		n := copy(r.room(), p)
		if n == 0 {
			break
		}
		r.end += int64(n)
		total, p = total+n, p[n:]
	}
	return total
}

// drop forgets what is below an offset.
func (r *ring) drop(below int64) { r.base = min(max(r.base, below), r.end) }

// stream is one of the program's output streams.
type stream struct {
	ring
	kind initwire.Kind
	fd   int   // -1 once it has ended
	sent int64 // up to where the present connection has it
}

// read takes what the program wrote. dead says that no process is left that
// could write more.
func (s *stream) read(dead bool) {
	for s.fd >= 0 {
		room := s.room()
		if len(room) == 0 {
			return
		}
		n, err := unix.Read(s.fd, room)
		switch {
		case n > 0:
			s.end += int64(n)
			if n < len(room) && !dead {
				return
			}
		case err == unix.EINTR:
		case err == unix.EAGAIN && !dead:
			return
		default: // the end, or a terminal's EIO
			s.close()
		}
	}
}

func (s *stream) close() {
	if s.fd >= 0 {
		unix.Close(s.fd)
		s.fd = -1
	}
}

// resume starts over for a connection that has the stream up to an offset.
func (s *stream) resume(have int64) {
	s.drop(have)
	s.sent = s.base
}
