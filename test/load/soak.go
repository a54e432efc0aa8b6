package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/docker/docker/client"

	"ecs/internal/devcluster"
	"ecs/test/images"
)

// soakCommand runs warm and cold tasks mixed, for long, and looks for what leaks.
const soakCommand = "soak"

const (
	soakParts = 10 // each has to have found containers started ahead
	// soakMark fails where an earlier program has marked the root file system.
	soakMark = "test ! -e /marker || exit 9; echo used >/marker; echo hi"
)

// soak is one run.
type soak struct {
	cluster  *cluster
	tasks    int
	span     time.Duration
	parallel int

	began time.Time
	next  atomic.Int64
	mu    sync.Mutex
	hits  [soakParts]int
	whys  map[string]int
}

func runSoak(ctx context.Context, args []string) error {
	s := &soak{whys: map[string]int{}}
	f := flag.NewFlagSet(soakCommand, flag.ExitOnError)
	bin := f.String("bin", "bin", "directory of the built binaries")
	port := f.Int("port", 18548, "first of the ports that the cluster may take")
	f.IntVar(&s.tasks, "tasks", 20_000, "tasks in all, every sixth of a shape of its own")
	f.DurationVar(&s.span, "span", time.Hour, "how long they are spread over, if the machine keeps up")
	f.IntVar(&s.parallel, "parallel", 4, "tasks at once at most")
	_ = f.Parse(args) // it exits
	if s.tasks < 10*soakParts || s.span <= 0 || s.parallel < 1 {
		return fmt.Errorf("-tasks %d -span %s -parallel %d: want at least %d tasks, some time and one at once", s.tasks, s.span, s.parallel, 10*soakParts)
	}
	where, err := filepath.Abs(*bin)
	if err != nil {
		return err
	}
	engine, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		return err
	}
	defer engine.Close()
	if err := images.Ensure(ctx, engine); err != nil {
		return fmt.Errorf("make the images: %w", err)
	}
	dir, err := os.MkdirTemp("", "ecs-soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s.cluster, err = up(ctx, dir, engine, devcluster.Options{HTTPPort: *port, Binaries: where, WarmCount: warmEach, Debug: true})
	if err != nil {
		return err
	}
	err = s.run(ctx)
	s.cluster.down(ctx)
	parked, others, lookErr := s.cluster.look(context.WithoutCancel(ctx))
	if left := len(parked) + others; left > 0 {
		err = errors.Join(err, fmt.Errorf("%d containers are left of the cluster", left))
	}
	return errors.Join(err, lookErr)
}

// run runs the tasks, and compares the processes after a tenth of them with the
// processes after all.
func (s *soak) run(ctx context.Context) error {
	s.began = time.Now()
	if err := s.until(ctx, s.tasks/soakParts); err != nil {
		return err
	}
	before, err := s.settled(ctx)
	if err != nil {
		return err
	}
	if err := s.until(ctx, s.tasks); err != nil {
		return err
	}
	after, err := s.settled(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("%d tasks in %s; started ahead: %v, by tenths of the run %v\n\n", s.tasks, time.Since(s.began).Round(time.Second), s.whys, s.hits)
	fmt.Print(printProcesses(before, after))
	var faults []error
	for part, hits := range s.hits {
		if hits == 0 {
			faults = append(faults, fmt.Errorf("part %d of %d: no task found a container started ahead: the pool is stuck", part+1, soakParts))
		}
	}
	for i := range after {
		faults = append(faults, after[i].grown(before[i], s.tasks-s.tasks/soakParts))
	}
	return errors.Join(faults...)
}

// until runs tasks up to so many in all, evenly over the span.
func (s *soak) until(ctx context.Context, end int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all sync.WaitGroup
	failed := make([]error, s.parallel)
	for i := range s.parallel {
		all.Go(func() {
			for failed[i] == nil {
				n := int(s.next.Add(1)) - 1
				if n >= end {
					s.next.Add(-1)
					return
				}
				due := s.began.Add(s.span * time.Duration(n) / time.Duration(s.tasks))
				if failed[i] = pause(ctx, time.Until(due)); failed[i] == nil {
					failed[i] = s.one(ctx, n)
				}
			}
			cancel() // the others need not go on
		})
	}
	all.Wait()
	return errors.Join(failed...)
}

// one runs the nth task. Every sixth has a memory limit of its own, so that nothing
// can be parked for it.
func (s *soak) one(ctx context.Context, n int) error {
	memory := 32 << 10
	if n%6 == 5 {
		memory += 1 + n%50_000
	}
	body := fmt.Sprintf(`{"image":%q,"command":["sh","-c",%q],"resources":{"cpu":0.1,"memory":"%dKiB"}}`, images.Busybox, soakMark, memory)
	at := s.cluster.Endpoints[n%len(s.cluster.Endpoints)]
	c := newCaller([]string{at}, s.cluster.Key, s.cluster.Secret, body)
	defer c.close()
	a, err := c.ask(ctx)
	if err != nil {
		return fmt.Errorf("task %d: %w", n, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.whys[a.Warm]++
	if a.Warm == "hit" {
		s.hits[n*soakParts/s.tasks]++
	}
	return nil
}

// process is what one process holds.
type process struct {
	name        string
	control     bool
	residentMiB float64
	files       int
	goroutines  int // of control nodes
}

// settled looks at the processes once nothing but parked containers is left.
func (s *soak) settled(ctx context.Context) ([]process, error) {
	limited, cancel := context.WithTimeout(ctx, fullWithin)
	defer cancel()
	for {
		_, others, err := s.cluster.look(limited)
		if err != nil {
			return nil, err
		}
		if others == 0 {
			break
		}
		if err := pause(limited, lookAgain); err != nil {
			return nil, fmt.Errorf("%d containers of tasks that have ended are still there: %w", others, err)
		}
	}
	var all []process
	for _, n := range s.cluster.Nodes {
		p := process{name: "ecs-" + n.Role + " " + n.Name, control: n.Role == "control", residentMiB: residentMiB(n.PID)}
		files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", n.PID))
		if err != nil {
			return nil, fmt.Errorf("%s has ended: %w", p.name, err)
		}
		p.files = len(files)
		if n.Debug != "" {
			if p.goroutines, err = goroutines(ctx, n.Debug); err != nil {
				return nil, err
			}
		}
		all = append(all, p)
	}
	return all, nil
}

// goroutines counts those of a process that serves Go's profiles.
func goroutines(ctx context.Context, debug string) (n int, err error) {
	file := filepath.Join(os.TempDir(), fmt.Sprintf("ecs-soak-%d.goroutines", os.Getpid()))
	defer os.Remove(file)
	if err := download(ctx, debug+"goroutine?debug=1", file); err != nil {
		return 0, fmt.Errorf("count goroutines: %w", err)
	}
	return int(field(file, "goroutine profile: total %f")), nil
}

// heldKiB is what a control node may need for a finished task that it holds, with
// what its collector leaves for later: some 3 KiB are live.
const heldKiB = 8

// grown says what of a process is more than what load alone explains: caches and
// the newest entries of the log fill up, a file and some goroutines come and go,
// and control nodes hold the tasks that have ended meanwhile.
func (p process) grown(before process, ended int) error {
	most := 1.5*before.residentMiB + 32
	if p.control {
		most += float64(ended) * heldKiB / 1024
	}
	if p.residentMiB > most || p.files > before.files+24 || p.goroutines > before.goroutines+64 {
		return fmt.Errorf("%s has grown from %+v to %+v", p.name, before, p)
	}
	return nil
}

func printProcesses(before, after []process) string {
	w := &strings.Builder{}
	t := newTable(w, "after a tenth, and at the end", "resident MiB", "", "files", "", "goroutines", "")
	for i, b := range before {
		a := after[i]
		t.row("%s\t%.1f\t%.1f\t%d\t%d\t%d\t%d", a.name, b.residentMiB, a.residentMiB, b.files, a.files, b.goroutines, a.goroutines)
	}
	t.end()
	return w.String()
}
