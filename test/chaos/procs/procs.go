// Package procs is a container engine without containers, for chaos: what it
// runs are real processes that outlive the agent and end themselves ahead of
// their lease, as ecs-init ends a program. So a hundred tasks a second run
// under real agents, with real kills and real time, where the real engine does
// seven. What it can't show is that containers, ecs-init, ecs-fence and the
// engine do their part: for that a share of the tasks runs in real ones.
//
// Everything of an attempt is in one directory:
//
//	order  what to run, as JSON
//	lease  the end of its lease, eight bytes, which the program reads again and again
//	out    its standard output
//	exit   how it ended, as JSON; it writes that itself
package procs

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"ecs/agent/runtime"
	"ecs/internal/task"
)

// Config is what a Runtime needs.
type Config struct {
	Dir     string   // of the attempts
	Node    string   // the agent's name
	Program []string // the command line of the program; the attempt's directory follows
	Witness string   // directory that programs tell of their life in
}

// Runtime runs attempts as processes.
type Runtime struct{ cfg Config }

var _ runtime.Runtime = (*Runtime)(nil)

// New makes a Runtime.
func New(cfg Config) (*Runtime, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of attempts: %w", err)
	}
	return &Runtime{cfg}, nil
}

// Order is what a program is told.
type Order struct {
	Task    string
	Attempt int
	Epoch   uint64
	Node    string
	Witness string
	Command []string // beat FOR CODE BYTES [late]
	Limit   time.Duration
}

// Exit is what a program says of its end.
type Exit struct {
	Code             int
	Lapsed, RunLimit bool
	Began            time.Time
	Run              time.Duration
}

// Probe implements runtime.Runtime.
func (r *Runtime) Probe(context.Context) (runtime.Engine, error) {
	return runtime.Engine{Description: "processes", Version: "1", APIVersion: "1", MilliCPU: 64_000, Memory: 64 << 30}, nil
}

// Park implements runtime.Runtime: nothing is started ahead here.
func (r *Runtime) Park(context.Context, runtime.Parking) (runtime.Parked, error) {
	return nil, errors.New("this engine starts nothing ahead")
}

func (r *Runtime) dir(tok task.Token) string {
	return filepath.Join(r.cfg.Dir, fmt.Sprintf("%s.%d.%d", tok.Task, tok.Attempt, tok.Epoch))
}

// Create implements runtime.Runtime.
func (r *Runtime) Create(ctx context.Context, o runtime.Order) (runtime.Container, error) {
	c := &container{dir: r.dir(o.Token), program: r.cfg.Program, order: &o}
	if err := (&container{dir: c.dir}).Remove(ctx); err != nil {
		return nil, fmt.Errorf("replace what is there: %w", err)
	}
	text, err := json.Marshal(Order{Task: string(o.Token.Task), Attempt: o.Token.Attempt, Epoch: o.Token.Epoch, Node: r.cfg.Node,
		Witness: r.cfg.Witness, Command: o.Spec.Command, Limit: o.Spec.Timeouts.Run})
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(c.dir, 0o700); err != nil {
		return nil, err
	}
	return c, os.WriteFile(filepath.Join(c.dir, "order"), text, 0o600)
}

// Adopt implements runtime.Runtime.
func (r *Runtime) Adopt(_ context.Context, a runtime.Adoption) (runtime.Container, error) {
	c := &container{dir: r.dir(a.Token), program: r.cfg.Program, order: &runtime.Order{Token: a.Token, Output: a.Output}, from: a.Stdout}
	if err := c.find(); err != nil {
		return nil, fmt.Errorf("adopt %s: %w (%w)", c.dir, runtime.ErrGone, err)
	}
	if a.Deadline != nil {
		c.Renew(a.Deadline())
	}
	return c, nil
}

// Reap implements runtime.Runtime.
func (r *Runtime) Reap(ctx context.Context, keep func(task.Token) bool) (int, error) {
	entries, err := os.ReadDir(r.cfg.Dir)
	if err != nil {
		return 0, err
	}
	reaped := 0
	var errs []error
	for _, e := range entries {
		tok, err := tokenOf(e.Name())
		if err != nil || keep(tok) {
			errs = append(errs, err)
			continue
		}
		reaped++
		errs = append(errs, (&container{dir: filepath.Join(r.cfg.Dir, e.Name())}).Remove(ctx))
	}
	return reaped, errors.Join(errs...)
}

func tokenOf(name string) (task.Token, error) {
	parts := strings.Split(name, ".")
	if len(parts) != 3 {
		return task.Token{}, fmt.Errorf("%s is no attempt's directory", name)
	}
	attempt, err := strconv.Atoi(parts[1])
	epoch, err2 := strconv.ParseUint(parts[2], 10, 64)
	return task.Token{Task: task.ID(parts[0]), Attempt: attempt, Epoch: epoch}, errors.Join(err, err2)
}

// writeLease replaces the end of the lease; a reader sees the old or the new one.
func writeLease(dir string, end time.Duration) error {
	f, err := os.OpenFile(filepath.Join(dir, "lease"), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(binary.BigEndian.AppendUint64(nil, uint64(end)), 0)
	return errors.Join(err, f.Close())
}
