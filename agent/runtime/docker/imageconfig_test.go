package docker

import (
	"slices"
	"strings"
	"testing"

	"ecs/internal/task"
)

func TestSpecOverImage(t *testing.T) {
	img := imageConfig{entrypoint: []string{"/entry"}, cmd: []string{"a", "b"}, workdir: "/srv", user: "nobody"}
	for _, tt := range []struct {
		name string
		img  imageConfig
		spec task.Spec
		argv string
	}{
		{"image's own", img, task.Spec{}, "/entry a b"},
		{"command", img, task.Spec{Command: []string{"c"}}, "/entry c"},
		{"entry point takes cmd away", img, task.Spec{Entrypoint: []string{"/mine"}}, "/mine"},
		{"both", img, task.Spec{Entrypoint: []string{"/mine"}, Command: []string{"c"}}, "/mine c"},
		{"entry point emptied", img, task.Spec{Entrypoint: []string{}, Command: []string{"c"}}, "c"},
		{"entry point emptied, cmd stays", img, task.Spec{Entrypoint: []string{}}, "a b"},
		{"entry point reset", img, task.Spec{Entrypoint: []string{""}, Command: []string{"c"}}, "c"},
		{"only a cmd", imageConfig{cmd: []string{"sh"}}, task.Spec{}, "sh"},
		{"nothing", imageConfig{}, task.Spec{}, ""},
	} {
		in, f := tt.img.merge(tt.spec, nil)
		if (f != nil) != (tt.argv == "") || strings.Join(in.argv, " ") != tt.argv {
			t.Errorf("%s: got %q, %v; want %q", tt.name, in.argv, f, tt.argv)
		}
	}
	in, f := img.merge(task.Spec{Workdir: "/x/../y/", User: "1:2"}, nil)
	if f != nil || in.workdir != "/y" || in.user != "1:2" {
		t.Errorf("got %+v, %v; want the task's user and clean directory", in, f)
	}
	if in, _ := img.merge(task.Spec{}, nil); in.workdir != "/srv" || in.user != "nobody" {
		t.Errorf("got %+v, want the image's user and directory", in)
	}
	for name, s := range map[string]task.Spec{"relative directory": {Workdir: "x"}, "variable without a name": {Env: []string{"=x"}}} {
		if _, f := img.merge(s, nil); f == nil || f.Outcome != task.StartFailed {
			t.Errorf("%s: got %v, want start_failed", name, f)
		}
	}
}

func TestEnvironment(t *testing.T) {
	for _, tt := range []struct {
		name          string
		tty           bool
		tasks, images []string
		want          []string
	}{
		{"nothing", false, nil, nil, []string{"PATH=" + defaultPath, "HOSTNAME=task"}},
		{"image's path keeps its place", false, []string{"A=1"}, []string{"PATH=/p", "B=2"}, []string{"PATH=/p", "HOSTNAME=task", "A=1", "B=2"}},
		{"task's over image's", true, []string{"B=3", "TERM=dumb"}, []string{"B=2"}, []string{"PATH=" + defaultPath, "HOSTNAME=task", "TERM=dumb", "B=3"}},
		{"twice", false, []string{"A=1", "A=2"}, nil, []string{"PATH=" + defaultPath, "HOSTNAME=task", "A=1", "A=2"}},
		{"taken away", false, []string{"HOSTNAME", "B"}, []string{"B=2"}, []string{"PATH=" + defaultPath}},
	} {
		if got := environment(tt.tty, tt.tasks, tt.images); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}
