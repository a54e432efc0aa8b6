package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"ecs/test/images"
)

// nomadAddr is where a dev agent serves its HTTP API.
const nomadAddr = "http://127.0.0.1:4646"

// nomad is a dev agent of a Nomad binary, spoken to by its documented HTTP API.
type nomad struct {
	cmd    *exec.Cmd
	dir    string
	log    string
	driver string
}

// startNomad starts a dev agent and registers a job to dispatch: by the docker
// driver where the agent finds the engine, else by raw_exec.
func startNomad(ctx context.Context, binary string) (*nomad, error) {
	version, err := exec.CommandContext(ctx, binary, "version").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(version), "Nomad") {
		return nil, fmt.Errorf("%s is no Nomad that runs here: `%s version` said %q: %w", binary, binary, version, err)
	}
	if conn, err := http.Get(nomadAddr + "/v1/status/leader"); err == nil {
		conn.Body.Close()
		return nil, fmt.Errorf("something serves %s already: end it, or leave Nomad out", nomadAddr)
	}
	n := &nomad{driver: "docker"}
	if n.dir, err = os.MkdirTemp("", "ecs-bench-nomad-"); err != nil {
		return nil, err
	}
	n.log = filepath.Join(n.dir, "log")
	out, err := os.Create(n.log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	n.cmd = exec.CommandContext(ctx, binary, "agent", "-dev", "-bind=127.0.0.1", "-log-level=WARN")
	n.cmd.Stdout, n.cmd.Stderr, n.cmd.Dir = out, out, n.dir
	n.cmd.Cancel = func() error { return n.cmd.Process.Signal(syscall.SIGINT) }
	if err := n.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start Nomad: %w", err)
	}
	if err := n.ready(ctx); err != nil {
		n.stop()
		return nil, err
	}
	return n, nil
}

func (n *nomad) stop() {
	_ = n.cmd.Process.Signal(syscall.SIGINT)
	_ = n.cmd.Wait() // how it ended is of no interest
	_ = os.RemoveAll(n.dir)
}

// ready waits for the node and its driver, and registers the job.
func (n *nomad) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		var nodes []struct {
			Status  string
			Drivers map[string]struct{ Healthy bool }
		}
		err := n.call(ctx, http.MethodGet, "/v1/nodes", nil, &nodes)
		if err == nil && len(nodes) == 1 && nodes[0].Status == "ready" && nodes[0].Drivers["raw_exec"].Healthy {
			if !nodes[0].Drivers["docker"].Healthy {
				n.driver = "raw_exec"
			}
			return n.register(ctx)
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			said, _ := os.ReadFile(n.log)
			return fmt.Errorf("the dev agent of Nomad is not ready after a minute (last: %v, %v); it said:\n%s", nodes, err, said)
		}
	}
}

func (n *nomad) register(ctx context.Context) error {
	config := map[string]any{"command": "/bin/echo", "args": []string{"hi"}}
	if n.driver == "docker" {
		config = map[string]any{"image": images.Busybox, "command": "echo", "args": []string{"hi"}, "network_mode": "none", "force_pull": false}
	}
	job := map[string]any{"Job": map[string]any{
		"ID": "ecs-bench", "Name": "ecs-bench", "Type": "batch", "Datacenters": []string{"*"},
		"ParameterizedJob": map[string]any{"Payload": "optional"},
		"TaskGroups": []any{map[string]any{"Name": "g", "Count": 1,
			"RestartPolicy": map[string]any{"Attempts": 0, "Mode": "fail"},
			"Tasks": []any{map[string]any{"Name": "t", "Driver": n.driver, "Config": config,
				"Resources": map[string]any{"CPU": 20, "MemoryMB": 32}}}}}}}
	if err := n.call(ctx, http.MethodPut, "/v1/jobs", job, nil); err != nil {
		return fmt.Errorf("register a job with Nomad: %w", err)
	}
	return nil
}

func (n *nomad) way() way {
	return way{name: "Nomad dispatch to complete (" + n.driver + ")", do: n.run}
}

// run dispatches the job and waits for its allocation's end by blocking queries.
func (n *nomad) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var made struct{ DispatchedJobID string }
	if err := n.call(ctx, http.MethodPut, "/v1/job/ecs-bench/dispatch", map[string]any{}, &made); err != nil {
		return fmt.Errorf("dispatch: %w", err)
	}
	for index := "1"; ; {
		var allocs []struct{ ClientStatus string }
		next, err := n.query(ctx, "/v1/job/"+made.DispatchedJobID+"/allocations?wait=30s&index="+index, &allocs)
		if err != nil {
			return fmt.Errorf("wait for the dispatched job: %w", err)
		}
		for _, a := range allocs {
			switch a.ClientStatus {
			case "complete":
				return nil
			case "failed", "lost":
				return fmt.Errorf("the allocation is %s", a.ClientStatus)
			}
		}
		index = next
	}
}

func (n *nomad) call(ctx context.Context, method, path string, body, out any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, nomadAddr+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	_, err = n.send(req, out)
	return err
}

// query is a blocking one; it gives the index to wait from next.
func (n *nomad) query(ctx context.Context, path string, out any) (index string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, nomadAddr+path, nil)
	if err != nil {
		return "", err
	}
	header, err := n.send(req, out)
	return header.Get("X-Nomad-Index"), err
}

func (n *nomad) send(req *http.Request, out any) (http.Header, error) {
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp.Header, err
	}
	if resp.StatusCode != http.StatusOK {
		return resp.Header, fmt.Errorf("%s %s: %s: %s", req.Method, req.URL.Path, resp.Status, bytes.TrimSpace(text))
	}
	if out == nil {
		return resp.Header, nil
	}
	return resp.Header, json.Unmarshal(text, out)
}
