package initwire

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"
)

// header is a kind and a length.
const header = 5

// Frame is one that a Reader has read. Its payload is valid until the next one.
type Frame struct {
	Kind    Kind
	Payload []byte
}

// Message decodes a frame that is no output and no input. It shares no memory
// with the frame.
func (f Frame) Message() (Message, error) { return parse(f.Kind, f.Payload) }

// Data gives the bytes of a Stdout, Stderr or Stdin frame and the offset of the
// first of them.
func (f Frame) Data() (offset int64, data []byte, err error) {
	if len(f.Payload) < 8 {
		return 0, nil, fmt.Errorf("frame of kind %d without an offset: %w", f.Kind, errMalformed)
	}
	offset = int64(binary.LittleEndian.Uint64(f.Payload))
	if offset < 0 || offset+int64(len(f.Payload)) < 0 {
		return 0, nil, fmt.Errorf("frame of kind %d at offset %d: %w", f.Kind, offset, errMalformed)
	}
	return offset, f.Payload[8:], nil
}

// Position gives what an Ack or a Resume says, without an allocation.
func (f Frame) Position() (Position, error) {
	d := decoder{rest: f.Payload}
	p := d.position()
	if d.failed || len(d.rest) != 0 {
		return Position{}, fmt.Errorf("frame of kind %d: %w", f.Kind, errMalformed)
	}
	return p, nil
}

const (
	// smallBuffer is what a Reader begins with, usualBuffer what it keeps.
	smallBuffer = 4 << 10
	usualBuffer = header + 8 + MaxOutput
)

// Reader reads frames. It is for one goroutine.
type Reader struct {
	from       io.Reader
	buf        []byte
	start, end int // what of buf was read and not given out
}

// NewReader reads from a connection. It reads ahead.
func NewReader(from io.Reader) *Reader { return &Reader{from: from} }

// Next gives the next frame. The error is io.EOF where the stream ends between
// two frames. After an error of the connection's own, a timeout say, Next can be
// called again: nothing that was read is lost.
func (r *Reader) Next() (Frame, error) {
	if err := r.fill(header); err != nil {
		return Frame{}, err
	}
	kind := Kind(r.buf[r.start])
	length := binary.LittleEndian.Uint32(r.buf[r.start+1:])
	if most := kind.MaxPayload(); most < 0 {
		return Frame{}, fmt.Errorf("frame of unknown kind %d", kind)
	} else if int64(length) > int64(most) {
		return Frame{}, fmt.Errorf("frame of kind %d with %d bytes, at most %d are allowed", kind, length, most)
	}
	if err := r.fill(header + int(length)); err != nil {
		return Frame{}, err
	}
	payload := r.buf[r.start+header : r.start+header+int(length)]
	r.start += header + int(length)
	return Frame{kind, payload}, nil
}

// fill reads until n bytes are there. The buffer grows only as bytes arrive, at
// most to twice what has arrived.
func (r *Reader) fill(n int) error {
	if r.start == r.end {
		r.start, r.end = 0, 0
		if len(r.buf) > usualBuffer {
			r.buf = nil // a long frame was an order: there is no second one
		}
	}
	for r.end-r.start < n {
		r.makeRoom(n)
		got, err := r.from.Read(r.buf[r.end:])
		r.end += got
		if err != nil && r.end-r.start < n {
			if err == io.EOF && r.end > r.start {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// makeRoom makes at least one more byte fit, for a frame of n.
func (r *Reader) makeRoom(n int) {
	if r.buf == nil {
		r.buf = make([]byte, smallBuffer)
	}
	if r.start > 0 && (r.end == len(r.buf) || r.start+n > len(r.buf)) {
		copy(r.buf, r.buf[r.start:r.end])
		r.start, r.end = 0, r.end-r.start
	}
	if r.end == len(r.buf) {
		grown := make([]byte, min(2*len(r.buf), max(n, usualBuffer)))
		copy(grown, r.buf[:r.end])
		r.buf = grown
	}
}

// Writer writes frames, each with one Write. It is safe for concurrent use.
type Writer struct {
	mu  sync.Mutex
	to  io.Writer
	buf []byte
}

// NewWriter writes to a connection.
func NewWriter(to io.Writer) *Writer { return &Writer{to: to} }

// Send writes messages, all with one Write: whoever reads wakes up once for them.
// Nothing is written where one of them is too large.
func (w *Writer) Send(messages ...Message) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = w.buf[:0]
	for _, m := range messages {
		at := len(w.buf)
		w.buf = m.append(append(w.buf, byte(m.Kind()), 0, 0, 0, 0))
		if err := w.seal(at, m.Kind()); err != nil {
			return err
		}
	}
	return w.flush()
}

// Ack writes an Ack, without an allocation.
func (w *Writer) Ack(p Position) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = p.append(append(w.buf[:0], byte(KindAck), 0, 0, 0, 0))
	if err := w.seal(0, KindAck); err != nil {
		return err
	}
	return w.flush()
}

// Data writes at most MaxOutput bytes as one frame, Stdout, Stderr or Stdin.
// The bytes may be in two parts, as a ring gives them.
func (w *Writer) Data(k Kind, offset int64, data, more []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = putInt(append(w.buf[:0], byte(k), 0, 0, 0, 0), offset)
	w.buf = append(append(w.buf, data...), more...)
	if err := w.seal(0, k); err != nil {
		return err
	}
	return w.flush()
}

// seal completes the frame that begins there and ends what there is.
func (w *Writer) seal(at int, k Kind) error {
	n := len(w.buf) - at - header
	if n > k.MaxPayload() {
		w.buf = nil
		return fmt.Errorf("frame of kind %d has %d bytes, at most %d fit", k, n, k.MaxPayload())
	}
	binary.LittleEndian.PutUint32(w.buf[at+1:], uint32(n))
	return nil
}

func (w *Writer) flush() error {
	_, err := w.to.Write(w.buf)
	if cap(w.buf) > 2*usualBuffer {
		w.buf = nil
	}
	return err
}
