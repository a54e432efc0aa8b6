package dashboard

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"ecs/proto/api"
)

// perPage is how many tasks one page lists.
const perPage = 50

// everybody, as an owner, is all of them.
const everybody = "*"

// tasksView is one page of tasks.
type tasksView struct {
	States []choice
	Labels []string
	Owner  string   // as asked; "" for who may see its own only
	Owners []choice // empty for those
	Tasks  []taskRow
	Older  string // address of the next page, empty on the last
	Newest string // of the first page, empty on it
	Clear  string // of the list without a filter, empty when there is none
}

type choice struct {
	Value, Text string
	Chosen      bool
}

// taskRow is one line of the list.
type taskRow struct {
	api.Task
	Command string
	Took    string // from submitted to finished
	Badge   badge
	Others  string // address of its owner's tasks, where that may be asked
}

// badge is a state or outcome in one word, and how it looks.
type badge struct{ Text, Tone string }

// badgeOf tones by what a person looks for: what failed, what runs, what waits.
func badgeOf(t *api.Task) badge {
	switch {
	case !t.Finished() && t.Stopping != "":
		return badge{"stopping", "warn"}
	case t.State == api.StateRunning:
		return badge{t.State, "live"}
	case !t.Finished():
		return badge{t.State, "wait"}
	}
	return outcome(t.Outcome, t.ExitCode)
}

func outcome(o string, exit *int) badge {
	switch {
	case o == api.OutcomeExited && exit != nil && *exit == 0:
		return badge{o, "good"}
	case o == api.OutcomeCancelled:
		return badge{o, "warn"}
	case o == "":
		return badge{}
	}
	return badge{o, "bad"}
}

func (t *turn) tasks() error {
	v, err := t.tasksData()
	if err != nil {
		return err
	}
	return t.render(http.StatusOK, "tasks", page{Title: "Tasks", Nav: "tasks", Live: t.liveAt("tasks/live", v), Data: v})
}

func (t *turn) tasksData() (any, error) {
	f := t.filter()
	var list api.TaskList
	if err := t.v.Ask("/v2/tasks?"+f.Encode(), &list); err != nil {
		return nil, err
	}
	v := &tasksView{Labels: f["label"], Owner: f.Get("owner"), Tasks: make([]taskRow, 0, len(list.Tasks))}
	for _, s := range []string{api.StatePending, api.StateAssigned, api.StateRunning, api.StateFinished} {
		v.States = append(v.States, choice{s, s, slices.Contains(f["state"], s)})
	}
	if v.Owner != "" {
		v.Owners = t.owners(v.Owner)
	}
	for i := range list.Tasks {
		v.Tasks = append(v.Tasks, t.row(&list.Tasks[i]))
	}
	at := func(changes func(url.Values)) string {
		q := url.Values{}
		for name, values := range f {
			q[name] = slices.Clone(values)
		}
		q.Del("limit")
		changes(q)
		return t.d.base + "tasks?" + q.Encode()
	}
	if list.Next != "" {
		v.Older = at(func(q url.Values) { q.Set("cursor", list.Next) })
	}
	if f.Has("cursor") {
		v.Newest = at(func(q url.Values) { q.Del("cursor") })
	}
	if f.Has("state") || f.Has("label") || len(v.Owners) > 0 && v.Owner != everybody {
		v.Clear = t.d.base + "tasks"
	}
	return v, nil
}

// filter is what the API is asked for. An operator sees everybody's tasks unless
// he asks for one key's.
func (t *turn) filter() url.Values {
	asked := t.r.URL.Query()
	f := url.Values{"limit": {strconv.Itoa(perPage)}}
	for _, name := range []string{"state", "label", "cursor", "owner"} {
		for _, value := range asked[name] {
			if value = strings.TrimSpace(value); value != "" && !slices.Contains(f[name], value) {
				f[name] = append(f[name], value)
			}
		}
	}
	if !f.Has("owner") && t.operates() {
		f.Set("owner", everybody)
	}
	return f
}

func (t *turn) owners(owner string) []choice {
	list := []choice{{everybody, "everybody", owner == everybody}, {t.key, t.key + " (you)", owner == t.key}}
	if owner != everybody && owner != t.key {
		list = append(list, choice{owner, owner, true})
	}
	return list
}

func (t *turn) row(v *api.Task) taskRow {
	row := taskRow{Task: *v, Command: shell(slices.Concat(v.Spec.Entrypoint, v.Spec.Command)), Badge: badgeOf(v)}
	if v.Finished() && !v.FinishedAt.IsZero() {
		row.Took = took(v.FinishedAt.Sub(v.SubmittedAt))
	}
	if t.operates() {
		row.Others = t.d.base + "tasks?owner=" + url.QueryEscape(v.Owner)
	}
	return row
}

// took gives a time with the digits that matter.
func took(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return group(strconv.FormatInt(d.Milliseconds(), 10)) + " ms"
	case d < time.Minute:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	}
	return d.Round(time.Second).String()
}

// labels gives a task's labels in the order of their names.
func (r taskRow) Labels() []string { return labelsOf(r.Spec.Labels) }

func labelsOf(m map[string]string) []string {
	list := make([]string, 0, len(m))
	for k, v := range m {
		list = append(list, k+"="+v)
	}
	slices.SortFunc(list, cmp.Compare)
	return list
}
