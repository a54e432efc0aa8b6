package initwire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// errMalformed is the cause of every payload that does not decode.
var errMalformed = errors.New("malformed")

func putInt(b []byte, v int64) []byte { return binary.LittleEndian.AppendUint64(b, uint64(v)) }

func putBytes[T ~string | []byte](b []byte, v T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

func putStrings(b []byte, v []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(v)))
	for _, s := range v {
		b = putBytes(b, s)
	}
	return b
}

func putBools(b []byte, v ...bool) []byte {
	var bits byte
	for i, set := range v {
		if set {
			bits |= 1 << i
		}
	}
	return append(b, bits)
}

// decoder takes a payload apart. After a fault it gives zeros.
type decoder struct {
	rest   []byte
	failed bool
}

func (d *decoder) take(n uint64) []byte {
	if d.failed || n > uint64(len(d.rest)) {
		d.failed = true
		return nil
	}
	taken := d.rest[:n]
	d.rest = d.rest[n:]
	return taken
}

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) int() int64 {
	if b := d.take(8); b != nil {
		return int64(binary.LittleEndian.Uint64(b))
	}
	return 0
}

// offset is an int that counts bytes.
func (d *decoder) offset() int64 {
	v := d.int()
	if v < 0 {
		d.failed = true
		return 0
	}
	return v
}

func (d *decoder) size() uint16 {
	if b := d.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

// count is a length, or how many elements follow of at least one byte each.
func (d *decoder) count() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 || v > uint64(len(d.rest)-n) {
		d.failed = true
		return 0
	}
	d.take(uint64(n))
	return v
}

func (d *decoder) string() string { return string(d.take(d.count())) }

func (d *decoder) bytes() []byte {
	b := d.take(d.count())
	if len(b) == 0 {
		return nil
	}
	return append([]byte(nil), b...)
}

func (d *decoder) strings() []string {
	var v []string
	for n := d.count(); n > 0 && !d.failed; n-- {
		v = append(v, d.string())
	}
	return v
}

// bools are up to eight of them; a bit beyond them is a fault.
func (d *decoder) bools(v ...*bool) {
	bits := d.byte()
	for i := range v {
		*v[i] = bits&(1<<i) != 0
	}
	if bits>>len(v) != 0 {
		d.failed = true
	}
}

func (h Hello) append(b []byte) []byte {
	b = putInt(b, int64(h.Version))
	b = putBytes(b, h.Nonce)
	b = putBools(b, h.Ordered, h.Started, h.Ended)
	return putInt(putInt(putInt(b, h.Stdout), h.Stderr), h.Stdin)
}

func (d *decoder) hello() (h Hello) {
	h.Version, h.Nonce = int(d.int()), d.string()
	d.bools(&h.Ordered, &h.Started, &h.Ended)
	h.Stdout, h.Stderr, h.Stdin = d.offset(), d.offset(), d.offset()
	return h
}

func (s Started) append(b []byte) []byte {
	return putInt(putInt(putInt(b, int64(s.Boottime)), int64(s.Unix)), int64(s.PID))
}

func (d *decoder) started() Started {
	return Started{Boottime: d.duration(), Unix: d.duration(), PID: int(d.int())}
}

func (d *decoder) duration() time.Duration { return time.Duration(d.int()) }

func (f Failed) append(b []byte) []byte {
	return putBytes(putInt(putBytes(b, f.Reason), int64(f.Errno)), f.Text)
}

func (d *decoder) failedFrame() Failed {
	return Failed{Reason: FailKind(d.string()), Errno: int(d.int()), Text: d.string()}
}

func (e Exit) append(b []byte) []byte {
	b = putBytes(putInt(putInt(b, int64(e.Code)), int64(e.Signal)), e.Cause)
	b = putInt(putInt(putInt(b, int64(e.Started)), int64(e.Ended)), int64(e.StartedAt))
	b = putInt(putInt(b, e.Stdout), e.Stderr)
	if e.Passed {
		b = putBools(b, true)
	}
	return b
}

func (d *decoder) exit() Exit {
	e := Exit{Code: int(d.int()), Signal: int(d.int()), Cause: Cause(d.string()),
		Started: d.duration(), Ended: d.duration(), StartedAt: d.duration(),
		Stdout: d.offset(), Stderr: d.offset()}
	if len(d.rest) > 0 {
		d.bools(&e.Passed)
		d.failed = d.failed || !e.Passed
	}
	return e
}

func (s StdinTaken) append(b []byte) []byte { return putBools(putInt(b, s.Offset), s.Closed) }

func (d *decoder) stdinTaken() (s StdinTaken) {
	s.Offset = d.offset()
	d.bools(&s.Closed)
	return s
}

func (p Position) append(b []byte) []byte { return putInt(putInt(b, p.Stdout), p.Stderr) }
func (r Resume) append(b []byte) []byte   { return Position(r).append(b) }
func (a Ack) append(b []byte) []byte      { return Position(a).append(b) }

func (d *decoder) position() Position { return Position{d.offset(), d.offset()} }

func (l Lease) append(b []byte) []byte    { return putInt(b, int64(l.Deadline)) }
func (StdinClose) append(b []byte) []byte { return b }
func (Kill) append(b []byte) []byte       { return b }
func (Done) append(b []byte) []byte       { return b }
func (s Signal) append(b []byte) []byte   { return putInt(b, int64(s.Number)) }
func (r Resize) append(b []byte) []byte   { return Size(r).append(b) }

func (s Size) append(b []byte) []byte {
	return binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(b, s.Rows), s.Cols)
}

// parse decodes a payload that is no output and no input.
func parse(k Kind, payload []byte) (Message, error) {
	d := decoder{rest: payload}
	var m Message
	switch k {
	case KindHello:
		m = d.hello()
	case KindStarted:
		m = d.started()
	case KindFailed:
		m = d.failedFrame()
	case KindExit:
		m = d.exit()
	case KindStdinTaken:
		m = d.stdinTaken()
	case KindResume:
		m = Resume(d.position())
	case KindAck:
		m = Ack(d.position())
	case KindOrder:
		m = d.order()
	case KindLease:
		m = Lease{d.duration()}
	case KindStdinClose:
		m = StdinClose{}
	case KindResize:
		m = Resize{d.size(), d.size()}
	case KindSignal:
		m = Signal{int(d.int())}
	case KindKill:
		m = Kill{}
	case KindDone:
		m = Done{}
	default:
		return nil, fmt.Errorf("frame of kind %d is no message", k)
	}
	if d.failed || len(d.rest) != 0 {
		return nil, fmt.Errorf("frame of kind %d, %d bytes: %w", k, len(payload), errMalformed)
	}
	return m, nil
}
