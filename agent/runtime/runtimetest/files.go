package runtimetest

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

	"ecs/agent/collect"
	"ecs/agent/runtime"
	"ecs/internal/task"
)

// File is something that a program leaves: a file with content, a link to a
// target, or else a directory.
type File struct{ Path, Content, Link string }

// leaving makes a container whose program leaves files and then sleeps.
func leaving(t *testing.T, h Harness, sleep string, files ...File) *attempt {
	t.Helper()
	var s task.Spec
	h.Image, s.Command = h.Leave(sleep, files...)
	s.Resources.Memory = 64 << 20
	return create(t, h, s.WithDefaults(task.V2, true)).start()
}

// archive is a sink as the agent's.
type archive struct {
	bytes.Buffer
	room int64
}

func (a *archive) Reserve(n int64) bool { a.room -= n; return a.room >= 0 }

// collected gives what was collected, and the entries as text, each "path
// content", "path/" or "path -> target".
func (a *attempt) collected(l collect.Limits, paths ...string) (task.Outputs, string) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.ctx, patience)
	defer cancel()
	to := &archive{room: 1 << 30}
	done, err := collect.Run(ctx, a.c, paths, to, l)
	if err != nil {
		a.t.Fatalf("collect: %v", err)
	}
	if done.Bytes != int64(to.Len()) || done.SHA256 != sha256.Sum256(to.Bytes()) {
		a.t.Errorf("got %d bytes, want the %d that were written and their hash", done.Bytes, to.Len())
	}
	var entries strings.Builder
	for in := tar.NewReader(to); ; {
		e, err := in.Next()
		if errors.Is(err, io.EOF) {
			return done, entries.String()
		}
		if err != nil {
			a.t.Fatalf("read the tar: %v", err)
		}
		content, err := io.ReadAll(in)
		if err != nil {
			a.t.Fatalf("read %s: %v", e.Name, err)
		}
		switch {
		case e.Typeflag == tar.TypeSymlink:
			fmt.Fprintf(&entries, "%s -> %s\n", e.Name, e.Linkname)
		case e.Typeflag == tar.TypeDir:
			fmt.Fprintf(&entries, "%s\n", e.Name)
		default:
			fmt.Fprintf(&entries, "%s %s\n", e.Name, content)
		}
	}
}

func wantFiles(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got files\n%swant\n%s", got, want)
	}
}

func filesAreCollected(t *testing.T, h Harness) {
	a := leaving(t, h, "0s", File{Path: "/out/a", Content: "alpha"}, File{Path: "/out/sub/deep/b", Content: "beta"}, File{Path: "/out/empty"},
		File{Path: "/out/l", Link: "/etc/passwd"}, File{Path: "/single", Content: "one"}, File{Path: "/link", Link: "out"})
	a.exit()
	done, got := a.collected(collect.DefaultLimits(), "/out", "/none", "/single", "/out2/x", "/single/x", "/link")
	a.remove()
	wantFiles(t, got, "out/\nout/a alpha\nout/empty/\nout/l -> /etc/passwd\nout/sub/\nout/sub/deep/\nout/sub/deep/b beta\nsingle one\nlink -> out\n")
	if fmt.Sprint(done.Missing) != "[1 3 4]" || done.Entries != 9 || done.Truncated {
		t.Errorf("got %+v, want 9 entries and 3 paths missing", done)
	}
}

// filesBehindALoop has the other paths collected: a loop costs only its own.
func filesBehindALoop(t *testing.T, h Harness) {
	a := leaving(t, h, "0s", File{Path: "/out/a", Content: "alpha"}, File{Path: "/out/self", Link: "self"},
		File{Path: "/loop", Link: "/loop"}, File{Path: "/there", Link: "back"}, File{Path: "/back", Link: "there"})
	a.exit()
	done, got := a.collected(collect.DefaultLimits(), "/loop", "/loop/x", "/there", "/back/x/y", "/out/self/not a directory", "/out")
	a.remove()
	wantFiles(t, got, "out/\nout/a alpha\nout/self -> self\n")
	if fmt.Sprint(done.Missing) != "[0 1 2 3 4]" || done.Entries != 3 {
		t.Errorf("got %+v, want 3 entries and 5 paths missing", done)
	}
}

func filesAreCutAtAnEntry(t *testing.T, h Harness) {
	a := leaving(t, h, "0s", File{Path: "/out/a", Content: "alpha"}, File{Path: "/out/b", Content: strings.Repeat("x", 5000)}, File{Path: "/z", Content: "z"})
	a.exit()
	for limits, want := range map[collect.Limits]string{
		{Bytes: 1024 + 512 + 1024 + 512 + 4999, Entries: 10}: "out/\nout/a alpha\n",
		{Bytes: 1 << 20, Entries: 2}:                         "out/\nout/a alpha\n",
		{Bytes: 1 << 20, Entries: 1}:                         "out/\n",
	} {
		done, got := a.collected(limits, "/out", "/none", "/z")
		wantFiles(t, got, want)
		if !done.Truncated || fmt.Sprint(done.Missing) != "[1]" || done.Bytes > limits.Bytes {
			t.Errorf("%+v: got %+v, want it cut, and still said what was not there", limits, done)
		}
	}
	a.remove()
}

// filesOfTheKilled also has the next process of the agent collect what an
// earlier one may have collected already.
func filesOfTheKilled(t *testing.T, h Harness) {
	a := leaving(t, h, "1m", File{Path: "/out", Content: "so far"})
	a.until("left")
	a.kill()
	a.exit()
	_, got := a.collected(collect.DefaultLimits(), "/out")
	wantFiles(t, got, "out so far\n")
	a, err := a.adopt(h.Restart(t))
	if err != nil {
		t.Fatalf("adopt: %v", err)
	}
	_, _ = a.wait() // how it ended is not what is asked here
	_, got = a.collected(collect.DefaultLimits(), "/out")
	wantFiles(t, got, "out so far\n")
	a.remove()
	if _, err := a.c.CopyOut(t.Context(), "/out"); err == nil || errors.Is(err, runtime.ErrNoPath) {
		t.Errorf("after the removal: got %v, want an error that is not about the path", err)
	}
}

func filesAfterARestart(t *testing.T, h Harness) {
	a := leaving(t, h, "0s", File{Path: "/out/a", Content: "alpha"})
	a.exit()
	content, err := a.c.CopyOut(t.Context(), "/out") // it dies in the middle of it
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	a, err = a.adopt(h.Restart(t))
	if err != nil {
		t.Fatalf("adopt: %v", err)
	}
	content.Close()
	if exit := a.exit(); exit.Code != 0 || exit.Interrupted != "" {
		t.Errorf("got %+v, want code 0", exit)
	}
	_, got := a.collected(collect.DefaultLimits(), "/out")
	wantFiles(t, got, "out/\nout/a alpha\n")
	a.remove()
}

func copyEndsWithItsContext(t *testing.T, h Harness) {
	const size = 100_000 // which the engine may have sent before it hears of the end
	a := leaving(t, h, "0s", File{Path: "/out/a", Content: strings.Repeat("x", size)})
	a.exit()
	ctx, cancel := context.WithCancel(t.Context())
	content, err := a.c.CopyOut(ctx, "/out")
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if n, err := io.Copy(io.Discard, content); err == nil && n < size {
		t.Errorf("got %d bytes and a clean end, want an error", n)
	}
	content.Close()
	a.remove() // nothing holds the container
}
