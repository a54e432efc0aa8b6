package verify

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// v1 is the contract of the first ECS, as its clients use it.
func v1() []Check {
	list := []Check{}
	for _, v := range []string{"v1.1", "v1.0"} {
		for _, end := range []string{"", "/"} {
			list = append(list, Check{"/" + v + "/tasks" + end, "run a command", func(s *session, ctx context.Context) error { return s.runV1(ctx, v, end) }})
		}
	}
	return append(list,
		Check{"/v1.1/tasks", "refuse what is wrong", func(s *session, ctx context.Context) error { return s.refuseV1(ctx) }},
		Check{"/v1.1/_version", "say the version", func(s *session, ctx context.Context) error { return s.both(ctx, "_version") }},
		Check{"/v1.1/_noop", "do nothing", func(s *session, ctx context.Context) error { return s.both(ctx, "_noop") }},
		Check{"/v1.1/_health", "say whether it is well", func(s *session, ctx context.Context) error { return s.healthV1(ctx) }},
	)
}

// bodyV1 is a task of one of the two versions.
func bodyV1(version, image string, cmd ...string) string {
	task := map[string]any{"docker_image": image, "cmd": cmd}
	if version == "v1.0" {
		at := strings.LastIndex(image, ":")
		task["docker_image"], task["tag"] = image[:max(at, 0)], image[at+1:]
	}
	text, err := json.Marshal(task)
	if err != nil {
		panic(err) // strings can't do that
	}
	return string(text)
}

func (s *session) runV1(ctx context.Context, version, end string) error {
	var got struct {
		ExitCode       int
		Stdout, Stderr []byte
	}
	if _, err := s.want(ctx, http.StatusCreated, &got, http.MethodPost, "/"+version+"/tasks"+end,
		bodyV1(version, s.Image, "sh", "-c", "echo out; echo err >&2; exit 7")); err != nil {
		return err
	}
	if got.ExitCode != 7 || string(got.Stdout) != "out\n" || string(got.Stderr) != "err\n" {
		return fmt.Errorf("got exit %d, stdout %q, stderr %q, want 7, out, err", got.ExitCode, got.Stdout, got.Stderr)
	}
	return nil
}

func (s *session) refuseV1(ctx context.Context) error {
	const tasks = "/v1.1/tasks"
	for _, tt := range []struct {
		body   string
		status int
		auth   string
	}{
		{`{"docker_image":"busybox:1","cmd":["true"],"colour":"red"}`, http.StatusBadRequest, "-"},
		{`{"docker_image":"busybox:1"}`, http.StatusBadRequest, "-"},
		{`{"docker_image":"busybox:1","cmd":[]}`, http.StatusBadRequest, "-"},
		{`{"docker_image":"busybox","cmd":["true"]}`, http.StatusBadRequest, "-"},
		{`{`, http.StatusBadRequest, "-"},
		{`{"docker_image":"busybox:1","cmd":["` + strings.Repeat("x", 6<<10) + `"]}`, http.StatusRequestEntityTooLarge, "-"},
		{`{"docker_image":"busybox:1","cmd":["true"]}`, http.StatusUnauthorized, ""},
	} {
		header := []string{}
		if tt.auth == "" {
			header = []string{"Authorization", ""}
		}
		if _, err := s.want(ctx, tt.status, nil, http.MethodPost, tasks, tt.body, header...); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) both(ctx context.Context, name string) error {
	for _, v := range []string{"/v1.1/", "/v1.0/"} {
		if _, err := s.want(ctx, http.StatusOK, nil, http.MethodGet, v+name, ""); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) healthV1(ctx context.Context) error {
	for _, query := range []string{"", "?quick=true", "?quick=false"} {
		for _, v := range []string{"/v1.1/", "/v1.0/"} {
			var got struct{ Status string }
			if _, err := s.want(ctx, http.StatusOK, &got, http.MethodGet, v+"_health"+query, ""); err != nil {
				return err
			}
			if got.Status != "green" {
				return fmt.Errorf("%s_health%s: got status %q, want green", v, query, got.Status)
			}
		}
	}
	_, err := s.want(ctx, http.StatusBadRequest, nil, http.MethodGet, "/v1.1/_health?quick=maybe", "")
	return err
}
