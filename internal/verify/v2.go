package verify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"ecs/proto/api"
	"ecs/proto/api/attach"
)

// Checks are all there are, in the order in which they are made: later ones look
// at what earlier ones ran.
func Checks() []Check {
	return append(v1(),
		Check{"submitTask", "run a task to its end", (*session).submit},
		Check{"submitTask", "give the same task for the same key", (*session).repeat},
		Check{"submitTask", "refuse what is wrong, and say where", (*session).refuse},
		Check{"getTask", "give a task", (*session).get},
		Check{"listTasks", "list tasks by label and page", (*session).list},
		Check{"getOutput", "give output, whole and in a range", (*session).output},
		Check{"getOutputs", "give the files that a task left", (*session).outputs},
		Check{"watchTask", "follow a task's events", (*session).watch},
		Check{"attachTask", "type into a program", (*session).attach},
		Check{"cancelTask", "cancel a task that runs", (*session).cancel},
		Check{"listNodes", "list nodes", (*session).nodes},
		Check{"getNode", "give a node", (*session).one},
		Check{"drainNode", "drain a node", (*session).drain},
		Check{"undrainNode", "undrain a node", (*session).undrain},
		Check{"getCluster", "give the cluster", (*session).cluster},
		Check{"findLogs", "gather the log lines of this run", (*session).logs},
		Check{"listImages", "list the images that nodes hold", (*session).images},
		Check{"warmImage", "wish for warm containers", (*session).warm},
		Check{"leaveNode", "send away no node that there is not", (*session).leave},
		Check{"saveCluster", "save the record", (*session).save},
		Check{"rotateGossipKey", "refuse to rotate the gossip key in unknown ways", (*session).rotateNothing},
		Check{"listKeys", "list keys, without secrets", (*session).keys},
		Check{"makeKey", "make a key and use it", (*session).makeKey},
		Check{"revokeKey", "revoke that key", (*session).revokeKey},
		Check{"makeJoinToken", "make a join token", (*session).makeToken},
		Check{"joinCluster", "refuse what is no join token", (*session).join},
		Check{"revokeCertificate", "refuse to revoke nothing", (*session).revokeNothing},
		Check{"listJoinTokens", "list join tokens, without secrets", (*session).tokens},
		Check{"withdrawJoinToken", "know no token that was never made", (*session).withdraw},
		Check{"listRevocations", "list revoked certificates", (*session).revocations},
		Check{"/metrics", "give metrics", page("/metrics", "go_goroutines")},
		Check{"/openapi.yaml", "give its own description", page("/openapi.yaml", "openapi: 3.1")},
		Check{"/docs", "give documentation", page("/docs", "<html")},
		Check{"/v2/nodes", "refuse strangers", (*session).strangers},
	)
}

// body is a v2 task of this run.
func (s *session) body(more map[string]any, command ...string) string {
	task := map[string]any{"image": s.Image, "command": command, "labels": map[string]string{"verify": s.mark}, "retention": "10m"}
	for name, value := range more {
		task[name] = value
	}
	text, err := json.Marshal(task)
	if err != nil {
		panic(err) // what is asked for here can be encoded
	}
	return string(text)
}

func (s *session) submit(ctx context.Context) error {
	var got api.Task
	a, err := s.want(ctx, http.StatusOK, &got, http.MethodPost, "/v2/tasks?wait=60s", s.body(nil, "sh", "-c", "echo hi; exit 3"),
		"X-Correlation-ID", s.mark, "Idempotency-Key", s.mark)
	if err != nil {
		return err
	}
	if got.Outcome != api.OutcomeExited || got.ExitCode == nil || *got.ExitCode != 3 || got.Stdout == nil || got.Stdout.Data != "hi\n" {
		return fmt.Errorf("got %s, want exited 3 with hi", short(a.body))
	}
	if a.header.Get("X-Correlation-ID") != s.mark || !strings.Contains(a.header.Get("Server-Timing"), "run;dur=") {
		return errors.New("the answer lacks the caller's correlation id, or Server-Timing")
	}
	s.task = got.ID
	return nil
}

// ran skips what needs the task that submit ran.
func (s *session) ran() error {
	if s.task == "" {
		return fmt.Errorf("%w: no task ran", ErrSkipped)
	}
	return nil
}

func (s *session) repeat(ctx context.Context) error {
	if err := s.ran(); err != nil {
		return err
	}
	var got api.Task
	if _, err := s.want(ctx, http.StatusOK, &got, http.MethodPost, "/v2/tasks?wait=60s", s.body(nil, "sh", "-c", "echo hi; exit 3"), "Idempotency-Key", s.mark); err != nil {
		return err
	}
	if got.ID != s.task {
		return fmt.Errorf("got task %s, want %s again", got.ID, s.task)
	}
	_, err := s.want(ctx, http.StatusConflict, nil, http.MethodPost, "/v2/tasks", s.body(nil, "true"), "Idempotency-Key", s.mark)
	return err
}

func (s *session) refuse(ctx context.Context) error {
	a, err := s.want(ctx, http.StatusBadRequest, nil, http.MethodPost, "/v2/tasks", `{"image":"busybox:1","colour":"red","resources":{"memory":"lots"}}`)
	if err != nil {
		return err
	}
	var p api.Problem
	if err := json.Unmarshal(a.body, &p); err != nil || len(p.Errors) != 2 {
		return fmt.Errorf("got %s, want both faults", short(a.body))
	}
	_, err = s.want(ctx, http.StatusNotFound, nil, http.MethodGet, "/v2/tasks/no-such-task", "")
	return err
}

func (s *session) get(ctx context.Context) error {
	if err := s.ran(); err != nil {
		return err
	}
	var got api.Task
	_, err := s.want(ctx, http.StatusOK, &got, http.MethodGet, "/v2/tasks/"+s.task+"?wait=5s", "")
	if err == nil && (got.ID != s.task || got.State != api.StateFinished || got.CID != s.mark) {
		return fmt.Errorf("got task %s %s of %s, want %s finished of %s", got.ID, got.State, got.CID, s.task, s.mark)
	}
	return err
}

func (s *session) list(ctx context.Context) error {
	if err := s.ran(); err != nil {
		return err
	}
	var got api.TaskList
	if _, err := s.want(ctx, http.StatusOK, &got, http.MethodGet, "/v2/tasks?state=finished&limit=10&label=verify%3D"+s.mark, ""); err != nil {
		return err
	}
	if len(got.Tasks) != 1 || got.Tasks[0].ID != s.task {
		return fmt.Errorf("got %d tasks with this run's label, want the one that ran", len(got.Tasks))
	}
	_, err := s.want(ctx, http.StatusBadRequest, nil, http.MethodGet, "/v2/tasks?state=asleep", "")
	return err
}

func (s *session) output(ctx context.Context) error {
	if err := s.ran(); err != nil {
		return err
	}
	path := "/v2/tasks/" + s.task + "/output?stream=stdout"
	a, err := s.want(ctx, http.StatusOK, nil, http.MethodGet, path, "")
	if err != nil || string(a.body) != "hi\n" {
		return errors.Join(err, wrong(a, "hi"))
	}
	a, err = s.want(ctx, http.StatusPartialContent, nil, http.MethodGet, path, "", "Range", "bytes=1-1")
	if err != nil || string(a.body) != "i" {
		return errors.Join(err, wrong(a, "i"))
	}
	return nil
}

func wrong(a answer, want string) error { return fmt.Errorf("got %q, want %q", short(a.body), want) }

func (s *session) outputs(ctx context.Context) error {
	var got api.Task
	if _, err := s.want(ctx, http.StatusOK, &got, http.MethodPost, "/v2/tasks?wait=60s",
		s.body(map[string]any{"outputs": []string{"/tmp/left"}}, "sh", "-c", "echo kept >/tmp/left")); err != nil {
		return err
	}
	a, err := s.want(ctx, http.StatusOK, nil, http.MethodGet, "/v2/tasks/"+got.ID+"/outputs", "")
	if err == nil && !strings.Contains(string(a.body), "kept\n") {
		return errors.New("the tar does not hold the file")
	}
	return err
}

func (s *session) watch(ctx context.Context) error {
	var got api.Task
	if _, err := s.want(ctx, http.StatusAccepted, &got, http.MethodPost, "/v2/tasks", s.body(nil, "sh", "-c", "echo seen")); err != nil {
		return err
	}
	a, err := s.want(ctx, http.StatusOK, nil, http.MethodGet, "/v2/tasks/"+got.ID+"/events", "")
	if err != nil {
		return err
	}
	if text := string(a.body); !strings.Contains(text, "event: output") || !strings.Contains(text, "seen") || !strings.Contains(text, `"outcome":"exited"`) {
		return fmt.Errorf("got events %s, want output and the end", short(a.body))
	}
	return nil
}

func (s *session) attach(ctx context.Context) error {
	var options []api.Option
	if s.Roots != nil {
		options = append(options, api.WithRoots(s.Roots))
	}
	client, err := api.New([]string{s.Endpoint}, s.Key, s.Secret, options...)
	if err != nil {
		return err
	}
	defer client.Close()
	var task api.Task
	if _, err := s.want(ctx, http.StatusAccepted, &task, http.MethodPost, "/v2/tasks", s.body(map[string]any{"open_stdin": true}, "cat")); err != nil {
		return err
	}
	session := attach.New(client, task.ID, attach.Start{})
	typed := make(chan error, 1)
	go func() {
		_, err := session.Write([]byte("typed\n"))
		session.CloseInput()
		typed <- err
	}()
	said, began := "", time.Now()
	done, err := session.Run(ctx, func(e attach.Event) error {
		if e.Stream == api.Stdout {
			said += string(e.Data)
		}
		return nil
	})
	if err := errors.Join(err, <-typed); err != nil {
		return err
	}
	if s.Saw != nil {
		s.Saw(http.MethodGet, "/v2/tasks/"+task.ID+"/attach", time.Since(began))
	}
	if said != "typed\n" || done.Outcome != api.OutcomeExited {
		return fmt.Errorf("got %q and outcome %s, want what was typed and exited", said, done.Outcome)
	}
	return nil
}

func (s *session) cancel(ctx context.Context) error {
	var got api.Task
	if _, err := s.want(ctx, http.StatusAccepted, &got, http.MethodPost, "/v2/tasks", s.body(nil, "sleep", "60")); err != nil {
		return err
	}
	_, err := s.want(ctx, http.StatusOK, &got, http.MethodPost, "/v2/tasks/"+got.ID+"/cancel?wait=30s", "")
	if err == nil && got.Outcome != api.OutcomeCancelled {
		return fmt.Errorf("got outcome %q, want cancelled", got.Outcome)
	}
	return err
}
