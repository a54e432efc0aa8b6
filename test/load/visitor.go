package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"ecs/internal/devcluster"
	"ecs/proto/api"
	"ecs/test/load/attack"
)

// visitor is who is known: a key with limits of its own, on one connection.
type visitor struct {
	key, other *api.Key // other has the limits that keys have by default
	request    []byte
	conn       *connection
}

func newVisitor(ctx context.Context, status *devcluster.Status) (*visitor, error) {
	client, err := status.Client()
	if err != nil {
		return nil, err
	}
	none := 0
	key, err := client.MakeKey(ctx, api.KeyRequest{Name: "visitor", Role: api.RoleRun, Rate: &none, Concurrency: &none})
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	other, err := client.MakeKey(ctx, api.KeyRequest{Name: "other", Role: api.RoleRun})
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", strings.TrimPrefix(status.Endpoints[0], "http://"))
	if err != nil {
		return nil, err
	}
	return &visitor{key: key, other: other, conn: &connection{conn, bufio.NewReader(conn)},
		request: fmt.Appendf(nil, aGoodKey, base64.StdEncoding.EncodeToString([]byte(key.ID+":"+key.Secret)))}, nil
}

// visitEvery is the pace of a visitor's requests.
const visitEvery = 5 * time.Millisecond

// times asks so often, and gives how long each answer took in milliseconds, in
// order.
func (v *visitor) times(ctx context.Context, count int) ([]float64, error) {
	took := make([]float64, count)
	pace := time.NewTicker(visitEvery)
	defer pace.Stop()
	for i := range took {
		select {
		case <-pace.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if err := v.conn.SetDeadline(time.Now().Add(answerWithin)); err != nil {
			return nil, err
		}
		began := time.Now()
		status, body, err := v.conn.exchange(v.request)
		if err != nil {
			return nil, fmt.Errorf("request %d of a good key: %w", i, err)
		}
		if status != http.StatusOK {
			return nil, fmt.Errorf("request %d of a good key: got %d %s", i, status, body)
		}
		took[i] = millis(began)
	}
	slices.Sort(took)
	return took, nil
}

// under takes quiet and attacked rounds in turn, a quiet one first and last.
func (v *visitor) under(ctx context.Context, p planned, o options, node devcluster.Node) (siege, error) {
	s := siege{Name: p.name}
	var quiet, attacked []float64
	before, err := v.times(ctx, o.doorRequests)
	if err != nil {
		return s, err
	}
	for round := range o.doorRounds {
		meanwhile, err := v.attacked(ctx, p.from(round), o, node, &s)
		if err != nil {
			return s, err
		}
		after, err := v.times(ctx, o.doorRequests)
		if err != nil {
			return s, err
		}
		around := slices.Sorted(slices.Values(slices.Concat(before, after)))
		s.Ratios = append(s.Ratios, at(meanwhile, 0.99)/at(around, 0.99))
		quiet, attacked = append(quiet, before...), append(attacked, meanwhile...)
		before = after
	}
	quiet = append(quiet, before...)
	slices.Sort(quiet)
	slices.Sort(attacked)
	s.Quiet, s.Attacked = spread{at(quiet, 0.5), at(quiet, 0.99)}, spread{at(attacked, 0.5), at(attacked, 0.99)}
	s.Ratio = s.Attacked.P99 / s.Quiet.P99
	return s, nil
}

// leastOfRate is how much of their rate strangers must have reached in every round:
// they run where nothing else wants the processor.
const leastOfRate = 0.9

// attacked takes one round under attack, and returns when nothing is left of it.
func (v *visitor) attacked(ctx context.Context, cfg attack.Config, o options, node devcluster.Node, s *siege) ([]float64, error) {
	pid := node.PID
	open := openFiles(pid)
	stranger, err := startAttack(ctx, cfg)
	if err != nil {
		return nil, err
	}
	of := stranger.cmd.Process.Pid
	profiled := make(chan error, 1)
	go func() { profiled <- o.profileAttack(ctx, s.Name, node) }()
	cpu, theirs, began := cpuSeconds(pid), cpuSeconds(of), time.Now()
	times, err := v.times(ctx, o.doorRequests)
	took := time.Since(began).Seconds()
	s.CPUPercent, s.StrangersPercent = 100*(cpuSeconds(pid)-cpu)/took, 100*(cpuSeconds(of)-theirs)/took
	done, ended := stranger.end()
	if err := errors.Join(err, ended, <-profiled); err != nil {
		return nil, err
	}
	s.Status, s.Held = done.Status, done.Held
	s.PerSecond = float64(done.Sent) / done.Seconds
	if cfg.Kind == attack.Hold {
		s.PerSecond = float64(done.Opened) / done.Seconds
	} else if s.PerSecond < leastOfRate*float64(cfg.Rate) {
		return nil, fmt.Errorf("%s: only %.0f came a second, so it shows nothing: the machine is too slow or too busy", s.Name, s.PerSecond)
	}
	return times, settle(ctx, pid, open)
}

// profileAttack takes a profile of the node's processor, if one is wanted.
func (o options) profileAttack(ctx context.Context, name string, node devcluster.Node) error {
	if o.profiles == "" {
		return nil
	}
	if err := os.MkdirAll(o.profiles, 0o755); err != nil {
		return err
	}
	return download(ctx, node.Debug+"profile?seconds=3", filepath.Join(o.profiles, name+".profile"))
}

const (
	// settleWithin is more than a node keeps what never brings a whole request.
	settleWithin = 45 * time.Second
	// ownFiles are what it may have opened for itself meanwhile.
	ownFiles = 8
)

// settle waits until a process has hardly more files open than it had: what it does for
// connections that are gone is no part of a quiet round.
func settle(ctx context.Context, pid, open int) error {
	ctx, cancel := context.WithTimeout(ctx, settleWithin)
	defer cancel()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for openFiles(pid) > open+ownFiles {
		select {
		case <-look.C:
		case <-ctx.Done():
			return fmt.Errorf("wait until the node has forgotten an attack: %d files are open, not %d: %w", openFiles(pid), open, ctx.Err())
		}
	}
	return nil
}

func openFiles(pid int) int {
	all, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)) // a process that is gone has none
	return len(all)
}

// stranger is the process of an attack.
type stranger struct {
	cmd *exec.Cmd
	out *bufio.Reader
}

// startAttack returns once the attack is under way. Strangers have machines of their
// own: so this one's processors are theirs only where nobody else wants them, whether
// they keep their rate is told beside what they cost, and what the kernel does to
// carry their bytes counts against the service all the same.
func startAttack(ctx context.Context, cfg attack.Config) (*stranger, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "chrt", "--idle", "0", self, attackCommand, string(text))
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the attack: %w", err)
	}
	s := &stranger{cmd: cmd, out: bufio.NewReader(out)}
	if _, err := s.out.ReadString('\n'); err != nil {
		_, ended := s.end()
		return nil, errors.Join(fmt.Errorf("wait for the attack to begin: %w", err), ended)
	}
	return s, nil
}

// end ends the attack and gives what it came to.
func (s *stranger) end() (done attack.Done, err error) {
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it has ended if this fails
	told := json.NewDecoder(s.out).Decode(&done)
	return done, errors.Join(told, s.cmd.Wait())
}

// runAttack is that process.
func runAttack(ctx context.Context, text string) error {
	var cfg attack.Config
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		return err
	}
	done, err := attack.Run(ctx, cfg, func() { fmt.Println("under way") })
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(done)
}
