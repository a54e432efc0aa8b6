package integration

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"ecs/proto/api"
)

func TestOutputIsByteExact(t *testing.T) {
	c := sharedCluster(t)
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	var even, odd bytes.Buffer
	for i := range 100_000 {
		w := &even
		if i%2 == 1 {
			w = &odd
		}
		fmt.Fprintf(w, "line %d\n", i)
	}
	for _, tc := range []struct {
		name           string
		cmd            []string
		stdout, stderr []byte
	}{
		{"empty", []string{"exit", "0"}, nil, nil},
		{"no trailing newline", []string{"print", "no newline"}, []byte("no newline"), nil},
		{"both streams", []string{"print", "out", ";", "eprint", "err"}, []byte("out"), []byte("err")},
		{"every byte value", []string{"bytes"}, every, nil},
		{"100,000 alternating lines", []string{"lines", "100000"}, even.Bytes(), odd.Bytes()},
	} {
		for i := range c.Endpoints {
			v1 := c.v1(t, i, prog, append([]string{"prog"}, tc.cmd...)...)
			equalBytes(t, tc.name+" v1 stdout", v1.Stdout, tc.stdout)
			equalBytes(t, tc.name+" v1 stderr", v1.Stderr, tc.stderr)
		}
		v2 := c.run(t, 1, api.TaskRequest{Image: prog, Command: append([]string{"prog"}, tc.cmd...)})
		equalBytes(t, tc.name+" v2 stdout", content(t, v2.Stdout), tc.stdout)
		equalBytes(t, tc.name+" v2 stderr", content(t, v2.Stderr), tc.stderr)
		sum := sha256.Sum256(tc.stdout)
		if v2.Stdout.SHA256 != hex.EncodeToString(sum[:]) || v2.Stdout.Truncated {
			t.Errorf("%s: got hash %s truncated %v", tc.name, v2.Stdout.SHA256, v2.Stdout.Truncated)
		}
	}
}

func equalBytes(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got %d bytes %.60q, want %d bytes %.60q", what, len(got), got, len(want), want)
	}
}

// TestOutputBeyondTheCapIsCountedNotKept prints 50 MiB against the default cap:
// the program is neither blocked nor killed, and says so by its own exit code.
func TestOutputBeyondTheCapIsCountedNotKept(t *testing.T) {
	c := sharedCluster(t)
	before := agentMemory(t, c)
	got := c.run(t, 0, api.TaskRequest{Image: prog, Command: []string{"prog", "spew", "52428800", ";", "exit", "9"}})
	if got.Outcome != api.OutcomeExited || got.ExitCode == nil || *got.ExitCode != 9 {
		t.Fatalf("got %s %v %s, want exited 9", got.Outcome, got.ExitCode, got.Reason)
	}
	if !got.Stdout.Truncated || got.Stdout.Bytes != 50<<20 || got.Stdout.Kept != 1<<20 {
		t.Errorf("got truncated %v, %d bytes, %d kept; want true, %d, %d", got.Stdout.Truncated, got.Stdout.Bytes, got.Stdout.Kept, 50<<20, 1<<20)
	}
	if data := content(t, got.Stdout); len(data) != 1<<20 {
		t.Errorf("got %d bytes inline, want the kept mebibyte", len(data))
	}
	if grown := agentMemory(t, c) - before; grown > 24<<20 {
		t.Errorf("the agents grew by %d MiB over 50 MiB of output, want it flat", grown>>20)
	}
}

// agentMemory is the largest resident set of the cluster's agents, in bytes.
func agentMemory(t *testing.T, c *cluster) int64 {
	t.Helper()
	var most int64
	for _, n := range c.Nodes {
		if n.Role == "agent" {
			most = max(most, resident(t, n.PID))
		}
	}
	return most
}

func resident(t *testing.T, pid int) int64 { return memory(t, pid, "VmRSS") }

// memory is what the kernel counts of a process's, in bytes.
func memory(t *testing.T, pid int, field string) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var kib int64
		if _, err := fmt.Sscanf(line, field+": %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	t.Fatalf("no %s of %d", field, pid)
	return 0
}

// TestSlowReaderLosesNothing reads the output of a program that prints 1.3 to
// 1.5 MB through a client that stalls 10 s in the middle: Docker's own attach
// loses the tail then.
func TestSlowReaderLosesNothing(t *testing.T) {
	c := sharedCluster(t)
	for n := 1_300_000; n <= 1_500_000; n += 50_000 {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			task := c.start(t, 0, api.TaskRequest{Image: prog, Command: []string{"prog", "spew", sizeOf(n), ";", "exit", "3"},
				MaxOutput: 4 << 20, Timeouts: api.Timeouts{Queue: api.Duration(5 * time.Minute)}})
			req, err := http.NewRequest(http.MethodGet, c.Endpoints[n%len(c.Endpoints)]+"/v2/tasks/"+task.ID+"/output?stream=stdout&follow=true", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.SetBasicAuth(c.Key, c.Secret)
			resp, err := httpClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			head := make([]byte, 1000)
			if _, err := io.ReadFull(resp.Body, head); err != nil {
				t.Fatalf("status %d: %v", resp.StatusCode, err)
			}
			<-time.After(10 * time.Second) // the stall is what is tested
			rest, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			done := c.await(t, task.ID, time.Minute)
			if done.ExitCode == nil || *done.ExitCode != 3 || done.Stdout.Bytes != int64(n) || done.Stdout.Truncated {
				t.Errorf("got exit %v, %d bytes, truncated %v; want 3, %d, false", done.ExitCode, done.Stdout.Bytes, done.Stdout.Truncated, n)
			}
			sum := sha256.Sum256(append(head, rest...))
			if got := hex.EncodeToString(sum[:]); got != done.Stdout.SHA256 || len(head)+len(rest) != n {
				t.Errorf("read %d bytes with hash %s, want %d with %s", len(head)+len(rest), got, n, done.Stdout.SHA256)
			}
		})
	}
}

// TestFollowShowsOutputAsItAppears reads lines while the program still runs.
func TestFollowShowsOutputAsItAppears(t *testing.T) {
	c := sharedCluster(t)
	task := c.start(t, 2, api.TaskRequest{Image: busybox, Command: sh("echo first; sleep 3; echo second")})
	req, _ := http.NewRequest(http.MethodGet, c.Endpoints[1]+"/v2/tasks/"+task.ID+"/output?stream=stdout&follow=true", nil)
	req.SetBasicAuth(c.Key, c.Secret)
	resp, err := httpClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	first := make([]byte, 6)
	if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != "first\n" {
		t.Fatalf("got %q %v, want the first line", first, err)
	}
	if state := c.task(1, task.ID).State; state == api.StateFinished {
		t.Error("the first line came only after the end")
	}
	rest, err := io.ReadAll(resp.Body)
	if err != nil || string(rest) != "second\n" {
		t.Errorf("got %q %v, want the second line", rest, err)
	}
}
