package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ecs/proto/api"
)

// file is an entry whose content waits in its Uname: see leaving.
func file(name, content string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content)), Uname: content}
}

func dir(name string) tar.Header { return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755} }

func link(kind byte, name, target string) tar.Header {
	return tar.Header{Typeflag: kind, Name: name, Linkname: target, Mode: 0o777}
}

// leaving is a service whose task left these files.
func leaving(t *testing.T, entries ...tar.Header) *service {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		content := h.Uname
		h.Uname = ""
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	s := newService(t)
	s.state, s.tar = api.StateFinished, b.Bytes()
	sum := sha256.Sum256(s.tar)
	s.task.Spec.Outputs = []string{"/out", "/none"}
	s.task.Outputs = &api.Outputs{Bytes: int64(len(s.tar)), Entries: len(entries), SHA256: hex.EncodeToString(sum[:]), Missing: []string{"/none"}}
	return s
}

// tree is what lies in a directory: names with content, "/" or "-> target".
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		name, _ := filepath.Rel(root, path)
		switch {
		case d.IsDir():
			found[name] = "/"
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			found[name] = "-> " + target
			return err
		default:
			content, err := os.ReadFile(path)
			found[name] = string(content)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func wantTree(t *testing.T, root string, want map[string]string) {
	t.Helper()
	got := tree(t, root)
	for name, content := range want {
		if got[name] != content {
			t.Errorf("%s: got %q, want %q", name, got[name], content)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("got %s as well: %q", name, got[name])
		}
	}
}

func TestCopyWritesWhatWasLeft(t *testing.T) {
	suid := file("out/tool", "run me")
	suid.Mode, suid.ModTime = 0o6755, time.Unix(1_000_000, 0)
	closed := dir("out/closed/")
	closed.Mode = 0o500
	s := leaving(t, dir("out/"), suid, closed, file("out/closed/in", "in"), link(tar.TypeSymlink, "out/l", "closed/in"),
		link(tar.TypeSymlink, "out/closed/up", "../tool"), link(tar.TypeLink, "out/hard", "out/tool"), file("etc/x", "x"))
	all := map[string]string{"out": "/", "out/tool": "run me", "out/closed": "/", "out/closed/in": "in", "out/l": "-> closed/in",
		"out/closed/up": "-> ../tool", "out/hard": "run me", "etc": "/", "etc/x": "x"}
	dest := filepath.Join(t.TempDir(), "made", "here")
	for range 2 { // the second replaces what the first wrote
		i := invoke(s)
		if code := i.main([]string{"tasks", "cp", "t1", dest}); code != 0 {
			t.Fatalf("got exit %d %s", code, i.err)
		}
		if !strings.Contains(i.err.String(), "nothing at /none") {
			t.Errorf("got %q, want it said what was not there", i.err)
		}
		wantTree(t, dest, all)
	}
	info, err := os.Stat(filepath.Join(dest, "out/tool"))
	if err != nil || info.Mode() != 0o755 || !info.ModTime().Equal(time.Unix(1_000_000, 0)) {
		t.Errorf("got %v %v, %v, want 0755 of its own time", info.Mode(), info.ModTime(), err)
	}

	for from, want := range map[string]map[string]string{
		"/out/closed":   {"closed": "/", "closed/in": "in", "closed/up": "-> ../tool"},
		"out/tool":      {"tool": "run me"},
		"/etc/../etc/x": {"x": "x"},
	} {
		dest := t.TempDir()
		i := invoke(s)
		if code := i.main([]string{"tasks", "cp", "t1:" + from, dest}); code != 0 {
			t.Errorf("%s: got exit %d %s", from, code, i.err)
		}
		wantTree(t, dest, want)
	}
}

func TestCopyGivesTheTarItself(t *testing.T) {
	s := leaving(t, dir("out/"), dir("out/a/"), file("out/a/b", "beta"), file("out/ab", "no"))
	i := invoke(s)
	if code := i.main([]string{"tasks", "cp", "t1", "-"}); code != 0 || i.out.String() != string(s.tar) {
		t.Errorf("got exit %d and %d bytes, want the %d as they are", code, len(i.out.String()), len(s.tar))
	}
	i = invoke(s)
	if code := i.main([]string{"tasks", "cp", "t1:/out/a", "-"}); code != 0 {
		t.Fatalf("got exit %d %s", code, i.err)
	}
	var names []string
	for r := tar.NewReader(strings.NewReader(i.out.String())); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
	if got := strings.Join(names, " "); got != "a/ a/b" {
		t.Errorf("got %s, want what was picked", got)
	}
}

// TestCopyLetsNothingOut takes tars as nobody but an enemy makes them.
func TestCopyLetsNothingOut(t *testing.T) {
	for name, tc := range map[string]struct {
		entries []tar.Header
		code    int
		want    map[string]string // in DEST, beside "mine" that was there
	}{
		"an absolute name":          {[]tar.Header{file("/victim", "evil")}, 1, nil},
		"a name that goes up":       {[]tar.Header{file("a/../../victim", "evil")}, 1, nil},
		"a name that only goes up":  {[]tar.Header{file("../victim", "evil")}, 1, nil},
		"a file through a link out": {[]tar.Header{link(tar.TypeSymlink, "l", ".."), file("l/victim", "evil")}, 0, map[string]string{"l": "/", "l/victim": "evil"}},
		"a file through a link in":  {[]tar.Header{link(tar.TypeSymlink, "l", "mine"), file("l", "new")}, 0, map[string]string{"l": "-> mine"}},
		"links that lead out": {[]tar.Header{link(tar.TypeSymlink, "a", "/etc/passwd"), link(tar.TypeSymlink, "b", "../victim"), link(tar.TypeSymlink, "d/c", "../../victim"),
			link(tar.TypeSymlink, "e", "")}, 0, map[string]string{}},
		"a link behind a link":              {[]tar.Header{dir("x/"), link(tar.TypeSymlink, "x/y", ".."), link(tar.TypeSymlink, "z", "x/y/../victim")}, 0, map[string]string{"x": "/", "x/y": "-> .."}},
		"a hard link out":                   {[]tar.Header{link(tar.TypeLink, "h", "../victim")}, 1, nil},
		"a hard link to what was there":     {[]tar.Header{link(tar.TypeLink, "h", "mine"), file("h", "evil")}, 0, map[string]string{"h": "evil"}},
		"a hard link to a link":             {[]tar.Header{link(tar.TypeSymlink, "l", "mine"), link(tar.TypeLink, "h", "l")}, 0, map[string]string{"l": "-> mine"}},
		"devices":                           {[]tar.Header{{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3}, {Typeflag: tar.TypeFifo, Name: "fifo"}}, 0, map[string]string{}},
		"through a link that was there":     {[]tar.Header{file("mylink/victim", "evil")}, 1, nil},
		"in place of a link that was there": {[]tar.Header{file("mylink", "new")}, 0, map[string]string{"mylink": "new"}},
		"in place of a directory":           {[]tar.Header{file("d/x", "x"), file("d", "y")}, 1, map[string]string{"d": "/", "d/x": "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			dest := filepath.Join(parent, "dest")
			outside := map[string]string{"victim": "whole", "dest": "/", "dest/mine": "mine", "dest/mylink": "-> .."}
			if err := errors.Join(os.Mkdir(dest, 0o755), os.WriteFile(filepath.Join(parent, "victim"), []byte("whole"), 0o644),
				os.WriteFile(filepath.Join(dest, "mine"), []byte("mine"), 0o644), os.Symlink("..", filepath.Join(dest, "mylink"))); err != nil {
				t.Fatal(err)
			}
			i := invoke(leaving(t, tc.entries...))
			if code := i.main([]string{"tasks", "cp", "t1", dest}); code != tc.code {
				t.Errorf("got exit %d %s, want %d", code, i.err, tc.code)
			}
			for name, content := range tc.want {
				outside["dest/"+name] = content
			}
			wantTree(t, parent, outside)
		})
	}
}

func TestCopySaysWhatIsWrong(t *testing.T) {
	for want, change := range map[string]func(*service) (arg string){
		"asked for no outputs": func(s *service) string { s.task.Spec.Outputs = nil; return "t1" },
		"it is running": func(s *service) string {
			s.task.State = api.StateRunning
			return "t1"
		},
		"left nothing at /none":     func(*service) string { return "t1:/none" },
		"nothing at /elsewhere":     func(*service) string { return "t1:/elsewhere" },
		"not what was recorded":     func(s *service) string { s.task.Outputs.SHA256 = strings.Repeat("0", 64); return "t1" },
		"want a task's id":          func(*service) string { return ":/out" },
		"hard link to /out/a: copy": func(*service) string { return "t1:/out/h" },
	} {
		s := leaving(t, file("out/a", "alpha"), link(tar.TypeLink, "out/h", "out/a"))
		arg := change(s)
		i := invoke(s)
		if code := i.main([]string{"tasks", "cp", arg, t.TempDir()}); code == 0 || !strings.Contains(i.err.String(), want) {
			t.Errorf("got exit %d %q, want %q", code, i.err, want)
		}
	}
	s := leaving(t, file("out/a", "alpha"))
	s.task.Outputs.Truncated = true
	i := invoke(s)
	if code := i.main([]string{"tasks", "cp", "t1", t.TempDir()}); code != 0 || !strings.Contains(i.err.String(), "not all") {
		t.Errorf("got exit %d %q, want it said that there was more", code, i.err)
	}
}
