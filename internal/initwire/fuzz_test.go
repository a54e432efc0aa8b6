package initwire

import (
	"bytes"
	"reflect"
	"testing"
)

// FuzzReader reads any stream. What it takes for a message must mean the same
// after it was written again.
func FuzzReader(f *testing.F) {
	var stream bytes.Buffer
	w := NewWriter(&stream)
	for _, m := range everyMessage() {
		if err := w.Send(m); err != nil {
			f.Fatal(err)
		}
	}
	if err := w.Data(KindStderr, 5, []byte("ab"), []byte("c")); err != nil {
		f.Fatal(err)
	}
	f.Add(stream.Bytes())
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := NewReader(bytes.NewReader(stream))
		for read := 0; ; {
			frame, err := r.Next()
			if err != nil {
				return
			}
			if read += header + len(frame.Payload); read > len(stream) {
				t.Fatalf("frames of %d bytes out of a stream of %d", read, len(stream))
			}
			again(t, frame)
		}
	})
}

// FuzzMessage decodes any payload as every kind.
func FuzzMessage(f *testing.F) {
	for _, m := range everyMessage() {
		f.Add(byte(m.Kind()), m.append(nil))
	}
	f.Add(byte(KindStdout), []byte("12345678data"))
	f.Fuzz(func(t *testing.T, kind byte, payload []byte) { again(t, Frame{Kind(kind), payload}) })
}

// FuzzOrder decodes any order, as stage 2 does.
func FuzzOrder(f *testing.F) {
	for _, m := range everyMessage() {
		if o, ok := m.(Order); ok {
			f.Add(AppendOrder(nil, o))
		}
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		o, err := ParseOrder(p)
		if err != nil {
			return
		}
		if back, err := ParseOrder(AppendOrder(nil, o)); err != nil || !reflect.DeepEqual(back, o) {
			t.Fatalf("got %#v, %v, want %#v", back, err, o)
		}
	})
}

// again writes a frame once more and compares.
func again(t *testing.T, frame Frame) {
	t.Helper()
	var out bytes.Buffer
	switch frame.Kind {
	case KindStdout, KindStderr, KindStdin:
		offset, data, err := frame.Data()
		if err != nil || len(data) > MaxOutput {
			return
		}
		if err := NewWriter(&out).Data(frame.Kind, offset, data[:len(data)/2], data[len(data)/2:]); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out.Bytes()[header:], frame.Payload) {
			t.Fatalf("got %q, want %q", out.Bytes()[header:], frame.Payload)
		}
	default:
		m, err := frame.Message()
		if err != nil {
			return
		}
		if m.Kind() != frame.Kind {
			t.Fatalf("a frame of kind %d became a message of kind %d", frame.Kind, m.Kind())
		}
		back, err := parse(m.Kind(), m.append(nil))
		if err != nil || !reflect.DeepEqual(back, m) {
			t.Fatalf("got %#v, %v, want %#v", back, err, m)
		}
	}
}
