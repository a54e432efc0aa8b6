package initwire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// everyMessage has one of each, with every field set.
func everyMessage() []Message {
	return []Message{
		Hello{Version: 1, Nonce: "n", Ordered: true, Ended: true, Stdout: 3, Stderr: 1 << 40, Stdin: 7},
		Started{Boottime: time.Hour, Unix: 1 << 60, PID: 7},
		Failed{Reason: NoCommand, Errno: 2, Text: "no such command: x"},
		Exit{Code: 137, Signal: 9, Cause: CauseLease, Started: 1, Ended: 2, StartedAt: 3, Stdout: 4, Stderr: 5, Passed: true},
		StdinTaken{Offset: 9, Closed: true},
		Resume{1, 2}, Ack{3, 4}, Lease{time.Minute}, StdinClose{}, Resize{24, 80}, Signal{15}, Kill{}, Done{},
		Order{},
		Order{Argv: []string{"sh", "-c", ""}, Env: []string{"A=b"}, Workdir: "/w", User: "u:g", Groups: []string{"1"},
			TTY: &Size{1, 2}, Stdin: StdinStream, Input: []byte("in"),
			Files:    []File{{"f", 0o640, []byte("x")}, {Path: "e"}},
			Rlimits:  []Rlimit{{7, 1, 1<<64 - 1}},
			RunLimit: 5, Lease: 6, OOMScoreAdj: -1, Caps: 1<<63 | 1, Umask: 0o22},
	}
}

func TestMessagesComeBack(t *testing.T) {
	var stream bytes.Buffer
	w := NewWriter(&stream)
	for _, m := range everyMessage() {
		if err := w.Send(m); err != nil {
			t.Fatalf("send %#v: %v", m, err)
		}
	}
	r := NewReader(iotest.OneByteReader(&stream))
	for _, want := range everyMessage() {
		f, err := r.Next()
		if err != nil {
			t.Fatalf("read %#v: %v", want, err)
		}
		if got, err := f.Message(); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %#v, %v, want %#v", got, err, want)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("after the last frame: got %v, want io.EOF", err)
	}
}

// An Exit of before, and one that nobody's signal came before, have the same bytes.
func TestPassedIsSentOnlyWhereItIsTrue(t *testing.T) {
	want := Exit{Code: 3, Cause: CauseProgram, Stderr: 7, Passed: true}
	payload := want.append(nil)
	if m, err := (Frame{Kind: KindExit, Payload: payload}).Message(); err != nil || m != want {
		t.Errorf("got %+v, %v, want %+v", m, err, want)
	}
	want.Passed = false
	if got := want.append(nil); !bytes.Equal(got, payload[:len(payload)-1]) {
		t.Errorf("got %x, want all but the last of %x", got, payload)
	}
	payload[len(payload)-1] = 0
	if m, err := (Frame{Kind: KindExit, Payload: payload}).Message(); err == nil {
		t.Errorf("got %+v of a frame that says no", m)
	}
}

// writes counts what arrives, and how often.
type writes struct {
	bytes.Buffer
	n int
}

func (w *writes) Write(p []byte) (int, error) {
	w.n++
	return w.Buffer.Write(p)
}

func TestMessagesSentTogetherAreWrittenTogether(t *testing.T) {
	var to writes
	w := NewWriter(&to)
	if err := w.Send(Resume{Stdout: 1}, Order{Argv: []string{"sh"}}, Lease{Deadline: 5}); err != nil {
		t.Fatal(err)
	}
	var kinds []Kind
	for r := NewReader(&to.Buffer); ; {
		f, err := r.Next()
		if err != nil {
			break
		}
		kinds = append(kinds, f.Kind)
	}
	if want := []Kind{KindResume, KindOrder, KindLease}; to.n != 1 || !slices.Equal(kinds, want) {
		t.Errorf("got %v with %d writes, want %v with one", kinds, to.n, want)
	}
	large := Order{Argv: []string{strings.Repeat("x", KindOrder.MaxPayload())}}
	if err := w.Send(Resume{}, large); err == nil || to.n != 1 {
		t.Errorf("got %v after %d writes, want a refusal and nothing written", err, to.n)
	}
}

func TestDataComesBack(t *testing.T) {
	var stream bytes.Buffer
	w := NewWriter(&stream)
	big := bytes.Repeat([]byte("0123456789abcdef"), MaxOutput/16)
	for i := range 20 {
		if err := w.Data(KindStdout, int64(i)*MaxOutput, big[:i*100], big[i*100:]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Data(KindStdout, 0, big, []byte("x")); err == nil {
		t.Error("a frame longer than MaxOutput was written")
	}
	r := NewReader(&stream)
	for i := range 20 {
		f, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		offset, data, err := f.Data()
		if err != nil || offset != int64(i)*MaxOutput || !bytes.Equal(data, big) {
			t.Fatalf("frame %d: got %d bytes at %d, %v", i, len(data), offset, err)
		}
	}
}

func TestFaultyFramesAreRefused(t *testing.T) {
	frame := func(kind Kind, length int, payload string) []byte {
		return append(binary.LittleEndian.AppendUint32([]byte{byte(kind)}, uint32(length)), payload...)
	}
	for name, c := range map[string]struct {
		stream []byte
		want   string
	}{
		"unknown kind":    {frame(0, 0, ""), "unknown kind 0"},
		"kind between":    {frame(KindStdinTaken+1, 0, ""), "unknown kind"},
		"long output":     {frame(KindStdout, 9+MaxOutput, ""), "are allowed"},
		"long message":    {frame(KindOrder, MaxPayload+1, ""), "are allowed"},
		"longest length":  {frame(KindOrder, 1<<32-1, ""), "are allowed"},
		"cut header":      {frame(KindKill, 0, "")[:4], "unexpected EOF"},
		"cut payload":     {frame(KindLease, 8, "1234567"), "unexpected EOF"},
		"short payload":   {frame(KindLease, 7, "1234567"), "malformed"},
		"long payload":    {frame(KindLease, 9, "123456789"), "malformed"},
		"data no offset":  {frame(KindStdout, 7, "1234567"), "malformed"},
		"data before 0":   {frame(KindStdout, 8, "\xff\xff\xff\xff\xff\xff\xff\xff"), "malformed"},
		"too many args":   {frame(KindOrder, 3, "\xff\xff\x03"), "malformed"},
		"overlong varint": {frame(KindOrder, 11, strings.Repeat("\xff", 11)), "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := NewReader(bytes.NewReader(c.stream)).Next()
			if err == nil && f.Kind == KindStdout {
				_, _, err = f.Data()
			} else if err == nil {
				_, err = f.Message()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// TestLongFramesCostWhatArrives checks that a length alone takes no memory.
func TestLongFramesCostWhatArrives(t *testing.T) {
	r := NewReader(bytes.NewReader(append(binary.LittleEndian.AppendUint32([]byte{byte(KindOrder)}, MaxPayload), "abc"...)))
	if _, err := r.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("got %v, want an unexpected EOF", err)
	}
	if len(r.buf) > smallBuffer {
		t.Errorf("the buffer has %d bytes for 8 that arrived", len(r.buf))
	}
}

func TestReaderForgetsLongFrames(t *testing.T) {
	var stream bytes.Buffer
	w := NewWriter(&stream)
	if err := errors.Join(w.Send(Order{Input: make([]byte, MaxPayload/2)}), w.Send(Kill{})); err != nil {
		t.Fatal(err)
	}
	r := NewReader(&stream)
	for range 2 {
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Fatalf("got %v, want io.EOF", err)
	}
	if len(r.buf) > usualBuffer || cap(w.buf) > 2*usualBuffer {
		t.Errorf("after a long frame the reader keeps %d bytes, the writer %d", len(r.buf), cap(w.buf))
	}
}

// endless gives the same frames again and again.
type endless struct {
	frames []byte
	at     int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.frames[e.at:])
	e.at = (e.at + n) % len(e.frames)
	return n, nil
}

func TestOutputAllocatesNothing(t *testing.T) {
	var stream bytes.Buffer
	data := make([]byte, MaxOutput)
	once := NewWriter(&stream)
	if err := errors.Join(once.Data(KindStdout, 0, data, nil), once.Ack(Position{})); err != nil {
		t.Fatal(err)
	}
	w, r := NewWriter(io.Discard), NewReader(&endless{frames: stream.Bytes()})
	got := testing.AllocsPerRun(100, func() {
		if err := errors.Join(w.Data(KindStdout, 0, data[:100], data[100:]), w.Ack(Position{1, 2})); err != nil {
			t.Fatal(err)
		}
		output, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := output.Data(); err != nil {
			t.Fatal(err)
		}
		ack, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ack.Position(); err != nil {
			t.Fatal(err)
		}
	})
	if got != 0 {
		t.Errorf("got %v allocations a frame, want none", got)
	}
}

func TestCapSet(t *testing.T) {
	if got, err := CapSet([]string{"CAP_CHOWN", "kill", "CHECKPOINT_RESTORE"}); err != nil || got != 1|1<<5|1<<40 {
		t.Errorf("got %#x, %v", got, err)
	}
	if _, err := CapSet([]string{"CHOW"}); err == nil {
		t.Error("a capability that is none was taken")
	}
}
