package collect_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"ecs/agent/collect"
	"ecs/agent/runtime"
)

// engine gives what its paths hold, however bad.
type engine map[string]func() (io.Reader, error)

func (e engine) CopyOut(_ context.Context, path string) (io.ReadCloser, error) {
	give := e[path]
	if give == nil {
		return nil, runtime.ErrNoPath
	}
	r, err := give()
	if err != nil {
		return nil, err
	}
	return io.NopCloser(r), nil
}

// of packs headers, whose content is as many "x".
func of(headers ...tar.Header) func() (io.Reader, error) {
	return func() (io.Reader, error) {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range headers {
			if err := w.WriteHeader(&h); err != nil {
				return nil, err
			}
			if _, err := io.WriteString(w, strings.Repeat("x", int(h.Size))); err != nil {
				return nil, err
			}
		}
		return &b, w.Close()
	}
}

// sink has only so much room, and may fail.
type sink struct {
	bytes.Buffer
	room int64
	err  error
}

func (s *sink) Reserve(n int64) bool {
	if n > s.room {
		return false
	}
	s.room -= n
	return true
}

func (s *sink) Write(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	return s.Buffer.Write(p)
}

func headers(t *testing.T, b []byte) (all []tar.Header) {
	t.Helper()
	for in := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, in); err != nil || n != h.Size {
			t.Fatalf("%s: got %d bytes, %v, want %d", h.Name, n, err, h.Size)
		}
		all = append(all, *h)
	}
}

func TestOnlyWhatIsWantedIsKept(t *testing.T) {
	long := strings.Repeat("n", 200) + "\xff\n" // no USTAR name, no UTF-8
	e := engine{"/a/out": of(
		tar.Header{Typeflag: tar.TypeDir, Name: "out/", Mode: 0o755},
		tar.Header{Typeflag: tar.TypeReg, Name: "out/suid", Mode: 0o6755, Size: 3, Uid: 1000, Uname: "root", ModTime: time.Unix(-5, 7),
			PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "all of them"}},
		tar.Header{Typeflag: tar.TypeReg, Name: "out/" + long, Size: 600},
		tar.Header{Typeflag: tar.TypeLink, Name: "out/hard", Linkname: "out/suid"},
		tar.Header{Typeflag: tar.TypeLink, Name: "out/hard2", Linkname: "etc/passwd"},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "out/soft", Linkname: "../../../etc/passwd"},
		tar.Header{Typeflag: tar.TypeBlock, Name: "out/sda", Devmajor: 8},
		tar.Header{Typeflag: tar.TypeChar, Name: "out/null", Devmajor: 1},
		tar.Header{Typeflag: tar.TypeFifo, Name: "out/fifo"},
		tar.Header{Typeflag: tar.TypeLink, Name: "out/fifo2", Linkname: "out/fifo"},
		tar.Header{Typeflag: tar.TypeLink, Name: "out/fifo3", Linkname: "out/fifo2"},
		tar.Header{Typeflag: tar.TypeLink, Name: "out/null2", Linkname: "out/null"},
		tar.Header{Typeflag: tar.TypeLink, Name: "out/soft2", Linkname: "out/soft"},
		tar.Header{Typeflag: tar.TypeLink, Name: "out/soft3", Linkname: "out/soft2"},
		tar.Header{Typeflag: tar.TypeReg, Name: "output/x"},
		tar.Header{Typeflag: tar.TypeReg, Name: "out/../../x"},
		tar.Header{Typeflag: tar.TypeReg, Name: "/etc/passwd"},
		tar.Header{Typeflag: tar.TypeReg, Name: "out/a//./b"},
	)}
	to := &sink{room: 1 << 20}
	done, err := collect.Run(t.Context(), e, []string{"/a/out"}, to, collect.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	got := headers(t, to.Bytes())
	var names []string
	for _, h := range got {
		names = append(names, fmt.Sprintf("%c %s %s", h.Typeflag, h.Name, h.Linkname))
		if h.Uname != "" || len(h.PAXRecords) > 1 {
			t.Errorf("got %+v, want nothing but what is kept", h)
		}
	}
	want := []string{"5 a/out/ ", "0 a/out/suid ", "0 a/out/" + long + " ", "1 a/out/hard a/out/suid", "2 a/out/soft ../../../etc/passwd",
		"1 a/out/soft2 a/out/soft", "1 a/out/soft3 a/out/soft2", "0 a/out/a/b "}
	if fmt.Sprintf("%q", names) != fmt.Sprintf("%q", want) || done.Entries != len(want) {
		t.Errorf("got  %q\nwant %q", names, want)
	}
	if h := got[1]; h.Mode != 0o6755 || h.Uid != 1000 || h.ModTime.Unix() != -5 {
		t.Errorf("got %+v, want mode, owner and time", h)
	}
	if done.Bytes != int64(to.Len()) || done.SHA256 != sha256.Sum256(to.Bytes()) || done.Truncated {
		t.Errorf("got %+v of %d bytes", done, to.Len())
	}
}

func TestTarIsCutBeforeWhatDoesNotFit(t *testing.T) {
	files := of(tar.Header{Typeflag: tar.TypeReg, Name: "o", Size: 1000}, tar.Header{Typeflag: tar.TypeReg, Name: "o/2", Size: 1000})
	one := int64(1024 + 512 + 1024)
	// A file that says it has 8 EiB, as a sparse one may: there is no need to read it.
	endless := func() (io.Reader, error) {
		var b bytes.Buffer
		err := tar.NewWriter(&b).WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "o", Size: 1<<63 - 1})
		return &b, err
	}
	for _, tc := range []struct {
		name    string
		give    func() (io.Reader, error)
		limits  collect.Limits
		room    int64
		entries int
		cut     bool
	}{
		{"all of it", files, collect.Limits{Bytes: one + 512 + 1024, Entries: 2}, 1 << 20, 2, false},
		{"a byte short", files, collect.Limits{Bytes: one + 512 + 1024 - 1, Entries: 2}, 1 << 20, 1, true},
		{"no room for the header", files, collect.Limits{Bytes: one + 511, Entries: 2}, 1 << 20, 1, true},
		{"too many", files, collect.Limits{Bytes: 1 << 20, Entries: 1}, 1 << 20, 1, true},
		{"endless", endless, collect.DefaultLimits(), 1 << 40, 0, true},
		{"nothing fits", files, collect.Limits{Bytes: 1024, Entries: 9}, 1 << 20, 0, true},
	} {
		to := &sink{room: tc.room}
		done, err := collect.Run(t.Context(), engine{"/o": tc.give}, []string{"/o", "/none"}, to, tc.limits)
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if n := len(headers(t, to.Bytes())); n != tc.entries || done.Entries != n || done.Truncated != tc.cut || len(done.Missing) != 1 {
			t.Errorf("%s: got %d entries, %+v; want %d, cut %v, one missing", tc.name, n, done, tc.entries, tc.cut)
		}
		if done.Bytes > tc.limits.Bytes || done.Bytes != int64(to.Len()) {
			t.Errorf("%s: got %d bytes, and %d written, of at most %d", tc.name, done.Bytes, to.Len(), tc.limits.Bytes)
		}
	}
}

// TestDevicesCountToo has millions of what is left out: looking at them ends,
// too.
func TestDevicesCountToo(t *testing.T) {
	var many []tar.Header
	for i := range 1000 {
		many = append(many, tar.Header{Typeflag: tar.TypeFifo, Name: fmt.Sprint("o/", i)})
	}
	to := &sink{room: 1 << 20}
	done, err := collect.Run(t.Context(), engine{"/o": of(many...)}, []string{"/o"}, to, collect.Limits{Bytes: 1 << 20, Entries: 999})
	if err != nil || !done.Truncated || done.Entries != 0 {
		t.Errorf("got %+v, %v, want it cut with nothing in it", done, err)
	}
}

func TestWhatBreaksIsLost(t *testing.T) {
	broken := errors.New("broken")
	half := func() (io.Reader, error) {
		r, err := of(tar.Header{Typeflag: tar.TypeReg, Name: "o", Size: 5000})()
		return io.LimitReader(r, 3000), err
	}
	good := of(tar.Header{Typeflag: tar.TypeReg, Name: "o", Size: 5})
	for name, tc := range map[string]struct {
		give func() (io.Reader, error)
		to   *sink
		want error
	}{
		"the engine fails":  {func() (io.Reader, error) { return nil, broken }, &sink{room: 1 << 20}, broken},
		"the engine ends":   {half, &sink{room: 1 << 20}, io.ErrUnexpectedEOF},
		"no tar":            {func() (io.Reader, error) { return strings.NewReader(strings.Repeat("no tar ", 200)), nil }, &sink{room: 1 << 20}, tar.ErrHeader},
		"the disk is full":  {good, &sink{room: 1 << 20, err: broken}, broken},
		"the spool is full": {good, &sink{room: 1023}, collect.ErrNoRoom},
		"it fills up":       {good, &sink{room: 1024 + 512 + 511}, collect.ErrNoRoom},
	} {
		if _, err := collect.Run(t.Context(), engine{"/o": tc.give}, []string{"/o"}, tc.to, collect.DefaultLimits()); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", name, err, tc.want)
		}
	}
}

func TestTheReasonIsWhyItsTimeEnded(t *testing.T) {
	late := errors.New("late")
	ctx, cancel := context.WithCancelCause(t.Context())
	e := engine{"/o": func() (io.Reader, error) { cancel(late); return nil, ctx.Err() }}
	if _, err := collect.Run(ctx, e, []string{"/o"}, &sink{room: 1 << 20}, collect.DefaultLimits()); !errors.Is(err, late) {
		t.Errorf("got %v, want the cause", err)
	}
}

// FuzzRun gives the collector anything at all for a tar.
func FuzzRun(f *testing.F) {
	for _, seed := range []func() (io.Reader, error){
		of(tar.Header{Typeflag: tar.TypeReg, Name: "o", Size: 1000}, tar.Header{Typeflag: tar.TypeLink, Name: "o/l", Linkname: "o"}),
		of(tar.Header{Typeflag: tar.TypeDir, Name: "o/"}, tar.Header{Typeflag: tar.TypeSymlink, Name: "o/" + strings.Repeat("x", 300), Linkname: "/"}),
	} {
		r, err := seed()
		if err != nil {
			f.Fatal(err)
		}
		b, _ := io.ReadAll(r)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		to := &sink{room: 1 << 20}
		l := collect.Limits{Bytes: 100_000, Entries: 50}
		done, err := collect.Run(t.Context(), engine{"/o": func() (io.Reader, error) { return bytes.NewReader(b), nil }}, []string{"/o"}, to, l)
		if int64(to.Len()) > l.Bytes {
			t.Errorf("got %d bytes, want at most %d", to.Len(), l.Bytes)
		}
		if err != nil {
			return
		}
		all := headers(t, to.Bytes())
		if len(all) != done.Entries {
			t.Errorf("got %d entries, said %d", len(all), done.Entries)
		}
		there := map[string]bool{}
		for _, h := range all {
			if there[h.Name] = true; h.Typeflag == tar.TypeLink && !there[h.Linkname] {
				t.Errorf("got a link to %q, which is not in the tar", h.Linkname)
			}
			if name := strings.TrimSuffix(h.Name, "/"); name != "o" && !strings.HasPrefix(name, "o/") || strings.Contains("/"+name+"/", "/../") {
				t.Errorf("got %q outside of what was asked for", h.Name)
			}
		}
	})
}
