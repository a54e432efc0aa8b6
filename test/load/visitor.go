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

// under takes quiet and attacked rounds in turn.
func (v *visitor) under(ctx context.Context, p planned, o options, pid int) (siege, error) {
	s := siege{Name: p.name}
	var quiet, attacked []float64
	for round := range o.doorRounds {
		before, err := v.times(ctx, o.doorRequests)
		if err != nil {
			return s, err
		}
		stranger, err := startAttack(ctx, p.from(round))
		if err != nil {
			return s, err
		}
		cpu, began := cpuSeconds(pid), time.Now()
		meanwhile, err := v.times(ctx, o.doorRequests)
		s.CPUPercent = 100 * (cpuSeconds(pid) - cpu) / time.Since(began).Seconds()
		done, ended := stranger.end()
		if err := errors.Join(err, ended); err != nil {
			return s, err
		}
		s.Ratios = append(s.Ratios, at(meanwhile, 0.99)/at(before, 0.99))
		s.Status = done.Status
		s.PerSecond = float64(done.Sent) / done.Seconds
		if p.Kind == attack.Hold {
			s.PerSecond = float64(done.Opened) / done.Seconds
		}
		quiet, attacked = append(quiet, before...), append(attacked, meanwhile...)
	}
	slices.Sort(quiet)
	slices.Sort(attacked)
	s.Quiet, s.Attacked = spread{at(quiet, 0.5), at(quiet, 0.99)}, spread{at(attacked, 0.5), at(attacked, 0.99)}
	s.Ratio = at(slices.Sorted(slices.Values(s.Ratios)), 0.5)
	return s, nil
}

// stranger is the process of an attack.
type stranger struct {
	cmd *exec.Cmd
	out *bufio.Reader
}

// startAttack returns once the attack is under way.
func startAttack(ctx context.Context, cfg attack.Config) (*stranger, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "nice", "-n", attackNice, self, attackCommand, string(text))
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

// attackNice is the priority of strangers on this machine: elsewhere they would
// have a machine of their own.
const attackNice = "10"
