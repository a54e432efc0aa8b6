package dashboard

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"ecs/proto/api"
)

// inline is how much of each stream of a finished task the page holds.
const inline = 256 << 10

// taskView is one task.
type taskView struct {
	api.Task
	Badge    badge
	Command  string
	Labels   []string
	Bill     *waterfall
	Attempts []attemptView
	Streams  []streamView
	Spec     string // as JSON
	At       string // of the task, without a slash behind it
	LogsAt   string
	Events   string // where its output comes live; empty once it has finished
}

type attemptView struct {
	api.Attempt
	Badge badge
}

// streamView is the output of one stream.
type streamView struct {
	Name string
	*api.Stream
	Text string
	More bool // than is on the page
	At   string
}

func (t *turn) task(id string) error {
	v := &taskView{At: t.d.base + "tasks/" + url.PathEscape(id)}
	if err := t.v.Ask(fmt.Sprintf("/v2/tasks/%s?max_inline=%d", url.PathEscape(id), inline), &v.Task); err != nil {
		return err
	}
	v.Badge, v.Command = badgeOf(&v.Task), shell(slices.Concat(v.Task.Spec.Entrypoint, v.Task.Spec.Command))
	v.LogsAt = t.d.base + "logs?cid=" + url.QueryEscape(v.CID)
	v.Labels = labelsOf(v.Task.Spec.Labels)
	for _, a := range v.Task.Attempts {
		v.Attempts = append(v.Attempts, attemptView{a, outcome(a.Outcome, a.ExitCode)})
	}
	if v.Times != nil {
		v.Bill = waterfallOf(v.Times)
	}
	if !v.Finished() {
		v.Events = v.At + "/events"
	}
	spec, err := json.MarshalIndent(v.Task.Spec, "", "  ")
	if err != nil {
		return fmt.Errorf("show the spec of %s: %w", id, err)
	}
	v.Spec = plain(string(spec))
	for _, s := range []streamView{{Name: api.Stdout, Stream: v.Stdout}, {Name: api.Stderr, Stream: v.Stderr}} {
		s.At = v.At + "/output?stream=" + s.Name
		if s.Stream != nil {
			b, err := s.Content()
			if err != nil {
				return fmt.Errorf("read %s of %s: %w", s.Name, id, err)
			}
			s.Text, s.More = plain(string(b)), int64(len(b)) < s.Kept
		}
		v.Streams = append(v.Streams, s)
	}
	return t.render(http.StatusOK, "task", page{Title: "Task " + v.ID, Nav: "tasks", Data: v})
}

// pass hands on what the API answers about a task: its events, or a download.
func (t *turn) pass(id, what string) error {
	target := "/v2/tasks/" + url.PathEscape(id) + "/" + what
	switch what {
	case "events":
	case "output", "outputs":
		stream := t.r.URL.Query().Get("stream")
		name := id + ".tar"
		if what == "output" {
			target += "?stream=" + url.QueryEscape(stream)
			name = id + "." + stream
		}
		// Whatever a program wrote is saved, never shown as a page of ours.
		t.w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", name))
		t.w.Header().Set("Content-Security-Policy", "sandbox; default-src 'none'")
	default:
		return &api.Problem{Status: http.StatusNotFound, Title: "Not found", Code: api.CodeNotFound, Detail: "the dashboard has no such page"}
	}
	err := t.v.Pass(target)
	if err != nil { // a page says it
		t.w.Header().Del("Content-Disposition")
		t.w.Header().Set("Content-Security-Policy", policy)
	}
	return err
}
