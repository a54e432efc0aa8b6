package daemon

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ecs/internal/telemetry"
)

// sample is a daemon with one setting of each kind.
type sample struct {
	name    string
	join    List
	memory  Bytes
	cpus    CPUs
	reserve Reserve
	local   Choice
	check   error
	run     func(ctx context.Context) error
}

func (s *sample) program() Program {
	return Program{
		Name: "ecs-sample",
		Define: func(fs *flag.FlagSet) {
			fs.StringVar(&s.name, "name", "default", "the node's `name`")
			fs.Var(&s.join, "join", "addresses")
			fs.Var(&s.memory, "memory", "memory")
			fs.Var(&s.cpus, "cpus", "cpus")
			fs.Var(&s.reserve, "reserve", "reserve")
			s.local = Choice{Value: "allow", Allowed: []string{"allow", "deny"}}
			fs.Var(&s.local, "local-images", "allow or deny")
		},
		Check: func() error { return s.check },
		Run: func(ctx context.Context, _ *slog.Logger, _ *telemetry.Ring) error {
			if s.run == nil {
				return nil
			}
			return s.run(ctx)
		},
	}
}

// main runs the sample and gives its status and what it printed.
func (s *sample) main(t *testing.T, signals <-chan os.Signal, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	status = s.program().Main(args, &out, &err, signals)
	return status, out.String(), err.String()
}

func configFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "sample.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestFlagWinsOverEnvironmentWinsOverFile(t *testing.T) {
	file := configFile(t, "name: file\nmemory: 1GiB\ncpus: 2\njoin: [a:1, b:2]\nlocal_images: deny\n")
	t.Setenv("ECS_SAMPLE_NAME", "env")
	t.Setenv("ECS_SAMPLE_MEMORY", "2GiB")
	t.Setenv("ECS_NAME", "not mine")
	var s sample
	if status, _, stderr := s.main(t, nil, "--config", file, "--name", "flag"); status != ExitOK {
		t.Fatalf("got status %d: %s", status, stderr)
	}
	if s.name != "flag" || s.memory != 2<<30 || s.cpus != 2000 || !slices.Equal(s.join, List{"a:1", "b:2"}) || s.local.Value != "deny" {
		t.Errorf("got name %s, memory %d, cpus %d, join %v, local images %s; want flag, 2 GiB, 2000, [a:1 b:2], deny",
			s.name, s.memory, s.cpus, s.join, s.local.Value)
	}
}

func TestEveryFaultOfTheFileIsNamedWithItsLine(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"unknown", "name: x\nmemroy: 1GiB\n", `:2: unknown setting "memroy", did you mean "memory"?`},
		{"unknown, nothing like it", "colour: red\n", `:1: unknown setting "colour"` + "\n"},
		{"second fault", "colour: red\nshape: round\n", `:2: unknown setting "shape"`},
		{"command line only", "config: x\n", `:1: unknown setting "config"`},
		{"twice", "local_images: deny\nlocal-images: allow\n", `:2: setting "local-images" is given twice`},
		{"bad value", "memory: lots\n", `:1: setting "memory": "lots" is not a size`},
		{"nested", "name:\n  first: x\n", `:1: setting "name" takes a plain value`},
		{"list for one", "name: [a, b]\n", `:1: setting "name" takes one value, not a list`},
		{"no mapping", "- name\n", ":1: want `setting: value` lines"},
		{"no YAML", "name: [a\n", "read "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			status, _, stderr := new(sample).main(t, nil, "--config", configFile(t, tc.text))
			if status != ExitUsage || !strings.Contains(stderr, tc.want) {
				t.Errorf("got status %d, %q, want %d and %q", status, stderr, ExitUsage, tc.want)
			}
		})
	}
}

func TestFileMayLeaveThingsEmpty(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "name:\n", "join: []\n"} {
		s := sample{}
		if status, _, stderr := s.main(t, nil, "--config", configFile(t, text)); status != ExitOK || s.name != "default" {
			t.Errorf("%q: got status %d, name %s: %s", text, status, s.name, stderr)
		}
	}
}

func TestUsageFaultsExitWithTwoAndStartNothing(t *testing.T) {
	for _, args := range [][]string{
		{"--nope"}, {"extra"}, {"--memory", "lots"}, {"--local-images", "maybe"}, {"--config", "/no/such/file"}, {"--log-level", "loud"},
	} {
		s := sample{run: func(context.Context) error { t.Errorf("%v: was started", args); return nil }}
		if status, _, stderr := s.main(t, nil, args...); status != ExitUsage || stderr == "" {
			t.Errorf("%v: got status %d, %q, want %d and a reason", args, status, stderr, ExitUsage)
		}
	}
}

func TestCheckConfigChecksAndStartsNothing(t *testing.T) {
	started := func(context.Context) error { t.Error("was started"); return nil }
	good := sample{run: started}
	if status, stdout, _ := good.main(t, nil, "--check-config"); status != ExitOK || !strings.Contains(stdout, "valid") {
		t.Errorf("got status %d, %q, want it found valid", status, stdout)
	}
	bad := sample{run: started, check: errors.Join(errors.New("no zone"), errors.New("no key"))}
	status, _, stderr := bad.main(t, nil, "--check-config")
	if status != ExitUsage || !strings.Contains(stderr, "no zone") || !strings.Contains(stderr, "no key") {
		t.Errorf("got status %d, %q, want both problems", status, stderr)
	}
}

func TestHelpAndVersionExitWithZero(t *testing.T) {
	if status, stdout, _ := new(sample).main(t, nil, "--version"); status != ExitOK || !strings.HasPrefix(stdout, "ecs-sample ") {
		t.Errorf("--version: got status %d, %q", status, stdout)
	}
	status, stdout, _ := new(sample).main(t, nil, "--help")
	for _, want := range []string{"--name name", "(default default)", "ECS_SAMPLE_SETTING", "--check-config"} {
		if status != ExitOK || !strings.Contains(stdout, want) {
			t.Errorf("--help: got status %d, want %q in\n%s", status, want, stdout)
		}
	}
}

func TestFailureExitsWithOne(t *testing.T) {
	s := sample{run: func(context.Context) error { return errors.New("disk on fire") }}
	if status, _, stderr := s.main(t, nil); status != ExitFailed || !strings.Contains(stderr, "disk on fire") {
		t.Errorf("got status %d, %q, want %d and the reason", status, stderr, ExitFailed)
	}
}

func TestFailureThatARestartDoesNotMendExitsWithThree(t *testing.T) {
	s := sample{run: func(context.Context) error { return errors.Join(Final(errors.New("empty the data directory")), nil) }}
	if status, _, stderr := s.main(t, nil); status != ExitFinal || !strings.Contains(stderr, "empty the data directory") {
		t.Errorf("got status %d, %q, want %d and the reason", status, stderr, ExitFinal)
	}
}

func TestFirstSignalEndsInGoodOrder(t *testing.T) {
	signals := make(chan os.Signal, 1)
	signals <- syscall.SIGTERM
	s := sample{run: func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}}
	if status, _, stderr := s.main(t, signals); status != ExitOK {
		t.Errorf("got status %d: %s, want %d", status, stderr, ExitOK)
	}
}

func TestSecondSignalDoesNotWait(t *testing.T) {
	signals := make(chan os.Signal, 2)
	signals <- syscall.SIGTERM
	signals <- syscall.SIGTERM
	release := make(chan struct{})
	defer close(release)
	s := sample{run: func(context.Context) error {
		<-release
		return nil
	}}
	ended := make(chan int)
	go func() {
		status, _, _ := s.main(t, signals)
		ended <- status
	}()
	select {
	case status := <-ended:
		if status != ExitFailed {
			t.Errorf("got status %d, want %d", status, ExitFailed)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("still waits for Run after the second signal")
	}
}

func TestAmountsAreReadAsPeopleWriteThem(t *testing.T) {
	for text, want := range map[string]CPUs{"2": 2000, "0.5": 500, "500m": 500, "1.25": 1250, "0": 0} {
		var got CPUs
		if err := got.Set(text); err != nil || got != want {
			t.Errorf("cpus %q: got %d, %v, want %d", text, got, err, want)
		}
	}
	for text, want := range map[string]Bytes{"512MiB": 512 << 20, "2GiB": 2 << 30, "1024": 1024, "0": 0} {
		var got Bytes
		if err := got.Set(text); err != nil || got != want {
			t.Errorf("size %q: got %d, %v, want %d", text, got, err, want)
		}
	}
	for text, want := range map[string]Reserve{
		"cpu=0.5,memory=1GiB": {500, 1 << 30}, "memory=512MiB": {0, 512 << 20}, "cpu=1": {1000, 0},
	} {
		var got Reserve
		if err := got.Set(text); err != nil || got != want {
			t.Errorf("reserve %q: got %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-1", "x", "NaN", "1e99"} {
		if new(CPUs).Set(text) == nil || new(Reserve).Set("cpu="+text) == nil {
			t.Errorf("cpus %q: got no error, want one", text)
		}
	}
	for _, text := range []string{"", "-1", "x", "1XB"} {
		if new(Bytes).Set(text) == nil || new(Reserve).Set("memory="+text) == nil {
			t.Errorf("size %q: got no error, want one", text)
		}
	}
}

func TestAmountsAreWrittenAsTheyAreRead(t *testing.T) {
	for _, want := range []Reserve{{}, {500, 512 << 20}, {1, 3 << 30}} {
		var got Reserve
		text := want.String()
		if text == "" {
			continue
		}
		if err := got.Set(text); err != nil || got != want {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
}

func FuzzConfigFile(f *testing.F) {
	f.Add("name: x\njoin: [a, b]\n")
	f.Add("? {a: b}\n: c\n")
	f.Add("a: &x 1\nb: *x\n--- \n")
	f.Fuzz(func(t *testing.T, text string) {
		s := newSettings(new(sample).program())
		// Whatever the file says: an answer, never a panic.
		_ = s.parseFile(strings.NewReader(text), func(name, value string) error {
			if s.flags.Lookup(name) == nil {
				t.Errorf("setting %q was set, but does not exist", name)
			}
			return nil
		})
	})
}
