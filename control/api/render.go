package api

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"unicode/utf8"

	"ecs/internal/task"
	"ecs/internal/telemetry"
	"ecs/proto/api"
)

// render gives a task as its owner sees it, without the bytes of its output.
func render(t *task.Task) api.Task {
	v := api.Task{
		ID: string(t.ID), Owner: t.Owner, CID: t.CID, TraceID: telemetry.TraceID(t.Trace), IdempotencyKey: t.Key, State: t.State.String(),
		Attempts: make([]api.Attempt, 0, len(t.Attempts)), SubmittedAt: t.SubmittedAt, FinishedAt: t.FinishedAt,
		Spec: renderSpec(&t.Spec),
	}
	for i := range t.Attempts {
		v.Attempts = append(v.Attempts, renderAttempt(t, &t.Attempts[i]))
	}
	v.NotBefore = t.RetryAt()
	if a := present(t); a != nil {
		v.Node, v.Zone = string(a.Node), a.Zone
	}
	if t.State != task.Finished {
		v.Stopping = string(t.StopAs)
		return v
	}
	renderResult(&v, t)
	return v
}

func renderAttempt(t *task.Task, a *task.Attempt) api.Attempt {
	v := api.Attempt{Number: a.Number, Node: string(a.Node), Zone: a.Zone, Outcome: string(a.Outcome), Reason: a.Reason,
		Placed: a.PlacedAt, Started: a.StartedAt, Ended: a.EndedAt, RetryAt: a.RetryAt}
	switch r := t.Result; {
	case a.HasExit:
		v.ExitCode = &a.ExitCode
	case r != nil && r.Attempt == a.Number && r.HasExit && r.Outcome == a.Outcome:
		v.ExitCode = &r.ExitCode
	}
	return v
}

func renderResult(v *api.Task, t *task.Task) {
	r := t.Result
	if r == nil {
		return
	}
	v.Outcome, v.Signal, v.Reason, v.ImageDigest = string(r.Outcome), r.Signal, r.Reason, r.ImageDigest
	v.Warm = t.Bill.Warm
	if r.HasExit {
		v.ExitCode = &r.ExitCode
	}
	v.Stdout, v.Stderr = renderStream(&r.Stdout), renderStream(&r.Stderr)
	v.Outputs = renderOutputs(t)
}

// renderStream describes a stream, without its bytes.
func renderStream(st *task.Stream) *api.Stream {
	return &api.Stream{Bytes: st.Bytes, Kept: st.Kept, SHA256: hashOf(st), Truncated: st.Truncated}
}

// hashOf is the hash of the kept bytes in hex. A task that never ran has none
// in its record: its output is empty.
func hashOf(st *task.Stream) string {
	hash := st.SHA256
	if st.Kept == 0 {
		hash = sha256.Sum256(nil)
	}
	return hex.EncodeToString(hash[:])
}

// encode gives bytes as text: as they are when they are UTF-8.
func encode(data []byte) (encoding, text string) {
	if utf8.Valid(data) {
		return api.EncodingUTF8, string(data)
	}
	return api.EncodingBase64, base64.StdEncoding.EncodeToString(data)
}

// present is the attempt that runs, or the one whose result stands.
func present(t *task.Task) *task.Attempt {
	if t.State == task.Pending || len(t.Attempts) == 0 {
		return nil
	}
	if t.State == task.Finished && t.Result != nil {
		for i := range t.Attempts {
			if t.Attempts[i].Number == t.Result.Attempt {
				return &t.Attempts[i]
			}
		}
	}
	return &t.Attempts[len(t.Attempts)-1]
}

func renderSpec(s *task.Spec) api.Spec {
	retries := s.InfrastructureRetries
	var files []api.SpecFile
	for _, f := range s.Files {
		files = append(files, api.SpecFile{Path: f.Path, Mode: fmt.Sprintf("%04o", f.Mode), Bytes: f.Size})
	}
	return api.Spec{
		Image: s.Image, Command: s.Command, Entrypoint: s.Entrypoint, Env: s.Env, SecretEnv: s.SecretEnvNames,
		Workdir: s.Workdir, User: s.User,
		StdinBytes: s.StdinSize, OpenStdin: s.OpenStdin, TTY: s.TTY, Files: files, Outputs: s.Outputs,
		Resources: api.Resources{CPU: api.CPU(s.Resources.MilliCPU), CPULimit: api.CPU(s.Resources.MilliCPULimit),
			Memory: api.Size(s.Resources.Memory), Pids: s.Resources.Pids},
		CapAdd: s.CapAdd, Network: string(s.Network),
		Timeouts: api.Timeouts{Queue: api.Duration(s.Timeouts.Queue), Pull: api.Duration(s.Timeouts.Pull),
			Run: api.Duration(s.Timeouts.Run), Total: api.Duration(s.Timeouts.Total)},
		Retry: api.Retry{Infrastructure: &retries, Program: s.ProgramRetries, OnExitCodes: s.RetryExitCodes,
			Backoff: api.Duration(s.RetryBackoff)},
		Delivery: string(s.Delivery), Lease: api.Duration(s.Lease),
		Placement:       api.Placement{Zones: s.Placement.Zones, Spread: string(s.Placement.Spread)},
		HasRegistryAuth: s.HasAuth, MaxOutput: api.Size(s.MaxOutput), Labels: s.Labels, Retention: api.Duration(s.Retention),
	}
}

func renderNode(n *task.Node) api.Node {
	free := n.Free()
	return api.Node{
		ID: string(n.ID), Name: n.Name, Zone: n.Zone, Status: string(n.Status), Drain: n.Drain, Unfit: n.Unfit,
		Capacity: renderCapacity(n.Capacity), Reserved: renderCapacity(n.Reserved), Free: renderCapacity(free),
		Attempts: n.Attempts, Attributes: n.Attributes, Engine: n.Engine, Version: n.Version, Epoch: n.Epoch,
		RegisteredAt: n.RegisteredAt,
	}
}

func renderCapacity(c task.Capacity) api.Capacity {
	return api.Capacity{CPU: api.CPU(c.MilliCPU), Memory: api.Size(c.Memory)}
}
