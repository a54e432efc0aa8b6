package integration

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ecs/proto/api"
)

// TestFilesThatATaskLeftAreFetched has a task leave a directory, a big file and
// what an enemy would, and fetches it through every node and by hand.
func TestFilesThatATaskLeftAreFetched(t *testing.T) {
	c := sharedCluster(t)
	done := c.run(t, 0, api.TaskRequest{Image: busybox, Outputs: []string{"/out", "/none", "/var/big", "/enemy"}, Command: sh(`
		mkdir -p /out/sub/deep /var /enemy
		printf alpha >/out/a; printf beta >/out/sub/deep/b; ln -s sub/deep/b /out/l; ln /out/a /out/hard
		chmod 4755 /out/a; mknod /out/fifo p
		yes 0123456789abcdef | head -c 20000000 >/var/big
		ln -s /etc/passwd /enemy/passwd; ln -s ../../../../../../etc /enemy/up; mkdir '/enemy/..x'; printf x '>/enemy/..x/y'
		exit 3`)})
	o := done.Outputs
	if done.ExitCode == nil || *done.ExitCode != 3 || o == nil || o.Truncated || o.Lost != "" || strings.Join(o.Missing, " ") != "/none" || o.Bytes < 20_000_000 {
		t.Fatalf("got %s %v %s, outputs %+v", done.Outcome, done.ExitCode, done.Reason, o)
	}
	path := "/v2/tasks/" + done.ID + "/outputs"
	for i := range c.Endpoints {
		status, header, body := c.get(i, path)
		sum := sha256.Sum256(body)
		if status != http.StatusOK || int64(len(body)) != o.Bytes || hex.EncodeToString(sum[:]) != o.SHA256 || header.Get("Content-Type") != "application/x-tar" {
			t.Errorf("node %d: got %d with %d bytes, want the %d recorded", i, status, len(body), o.Bytes)
		}
		if n := entries(t, body); n != o.Entries {
			t.Errorf("node %d: got %d entries, want %d", i, n, o.Entries)
		}
	}
	status, header, part := c.call(1, http.MethodGet, path, nil, "Range", "bytes=10000000-10000009")
	if status != http.StatusPartialContent || len(part) != 10 || header.Get("Content-Range") == "" {
		t.Errorf("range: got %d with %d bytes, %v", status, len(part), header)
	}

	dest := filepath.Join(t.TempDir(), "results")
	out, errOut, code := c.ecsctl("tasks", "cp", done.ID, dest)
	if code != 0 || !strings.Contains(errOut, "/none") || !strings.Contains(errOut, "enemy/passwd is left out") || !strings.Contains(errOut, "enemy/up is left out") {
		t.Fatalf("cp: exit %d\n%s%s", code, out, errOut)
	}
	big := bytes.Repeat([]byte("0123456789abcdef\n"), 20_000_000/17+1)[:20_000_000]
	for name, want := range map[string][]byte{"out/a": []byte("alpha"), "out/hard": []byte("alpha"), "out/sub/deep/b": []byte("beta"), "out/l": []byte("beta"), "var/big": big} {
		got, err := os.ReadFile(filepath.Join(dest, name))
		if err != nil {
			t.Error(err)
		}
		equalBytes(t, name, got, want)
	}
	if info, err := os.Stat(filepath.Join(dest, "out/a")); err != nil || info.Mode() != 0o755 {
		t.Errorf("got %v, %v, want 0755: the set-user-ID bit goes", info, err)
	}
	for _, name := range []string{"enemy/passwd", "enemy/up", "out/fifo"} {
		if _, err := os.Lstat(filepath.Join(dest, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: got %v, want it left out", name, err)
		}
	}
	if out, errOut, code := c.ecsctl("tasks", "cp", done.ID+":/out/sub", "-"); code != 0 || entries(t, []byte(out)) != 3 {
		t.Errorf("one directory: exit %d %s", code, errOut)
	}
	if _, errOut, code := c.ecsctl("tasks", "cp", done.ID+":/none", dest); code != 1 || !strings.Contains(errOut, "left nothing at /none") {
		t.Errorf("a path that was not there: exit %d %q", code, errOut)
	}
	if out, _, code := c.ecsctl("tasks", "show", done.ID); code != 0 || !strings.Contains(out, "/none") || !strings.Contains(out, "entries in a tar") {
		t.Errorf("show: exit %d\n%s", code, out)
	}
}

// entries counts what a tar holds.
func entries(t *testing.T, b []byte) (n int) {
	t.Helper()
	for in := tar.NewReader(bytes.NewReader(b)); ; n++ {
		switch _, err := in.Next(); {
		case errors.Is(err, io.EOF):
			return n
		case err != nil:
			t.Fatalf("entry %d: %v", n, err)
		}
	}
}

func TestFilesAreBoundedAndSaidWhenThereAreNone(t *testing.T) {
	c := sharedCluster(t)
	cut := c.run(t, 1, api.TaskRequest{Image: busybox, Outputs: []string{"/out"}, Timeouts: api.Timeouts{Run: api.Duration(time.Minute)},
		Command: sh(`mkdir /out; printf small >/out/a; truncate -s 100G /out/sparse`)})
	if o := cut.Outputs; o == nil || !o.Truncated || o.Lost != "" || o.Bytes > api.MaxOutputs {
		t.Errorf("a file of 100 GiB: got %+v of %s, want it cut", o, cut.Outcome)
	}
	timedOut := c.run(t, 2, api.TaskRequest{Image: busybox, Outputs: []string{"/out"}, Timeouts: api.Timeouts{Run: api.Duration(2 * time.Second)},
		Command: sh(`mkdir /out; printf "so far" >/out/a; sleep 60`)})
	dest := t.TempDir()
	if _, errOut, code := c.ecsctl("tasks", "cp", timedOut.ID+":/out/a", dest); code != 0 || timedOut.Outcome != api.OutcomeTimedOut {
		t.Errorf("%s: exit %d %s", timedOut.Outcome, code, errOut)
	}
	got, _ := os.ReadFile(filepath.Join(dest, "a"))
	equalBytes(t, "of a program that timed out", got, []byte("so far"))

	live := c.start(t, 0, api.TaskRequest{Image: busybox, Outputs: []string{"/out"}, Command: sh(`sleep 60`)})
	if status, h, body := c.get(1, "/v2/tasks/"+live.ID+"/outputs"); status != http.StatusConflict || problem(t, h, body).Code != api.CodeNotFinished {
		t.Errorf("of a live task: got %d %s", status, body)
	}
	c.cancel(t, 0, live.ID)
	none := c.run(t, 0, api.TaskRequest{Image: busybox, Command: sh(`true`)})
	if status, h, body := c.get(2, "/v2/tasks/"+none.ID+"/outputs"); status != http.StatusNotFound || problem(t, h, body).Code != api.CodeNoOutputs {
		t.Errorf("of a task that asked for none: got %d %s", status, body)
	}
	if _, errOut, code := c.ecsctl("tasks", "cp", none.ID, dest); code != 1 || !strings.Contains(errOut, "asked for no outputs") {
		t.Errorf("cp: exit %d %q", code, errOut)
	}
	out, errOut, code := c.ecsctl("run", "--output", "/out", "--label", "test=run-output", busybox, "sh", "-c", "mkdir /out; echo x >/out/x")
	if code != 0 {
		t.Errorf("run --output: exit %d %s%s", code, out, errOut)
	}
}
