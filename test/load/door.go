package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"ecs/control/api"
	"ecs/control/state"
	"ecs/internal/access"
	"ecs/internal/devcluster"
	wire "ecs/proto/api"
	ecsv1 "ecs/proto/ecs/v1"
	"ecs/test/load/attack"
)

// attackCommand, as the first argument, makes this program a stranger at the
// door: it has a process of its own, with the lowest priority, so that what it costs
// itself is not taken for what it costs the service.
const attackCommand = "attack"

// door is what strangers cost those who are known: how long a small request of a
// good key takes while nothing else comes, and under each attack.
type door struct {
	// Remembered is what it costs to look at a key and secret that were right
	// before, in microseconds, with a record of 1,000 keys.
	Remembered checked `json:"remembered_us"`
	// Requests are how many of a good key make one round, quiet or attacked.
	Requests int     `json:"requests"`
	Attacks  []siege `json:"attacks"`
}

type checked struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
}

// siege is one attack, in rounds that take turns with quiet ones.
type siege struct {
	Name string `json:"name"`
	// Quiet and Attacked are of all rounds, and Ratio that of their p99. Ratios are
	// those of each attacked round to the quiet ones before and after it.
	Quiet    spread    `json:"quiet"`
	Attacked spread    `json:"attacked"`
	Ratio    float64   `json:"p99_ratio"`
	Ratios   []float64 `json:"p99_ratios"`
	// PerSecond is how many wrong secrets, or new connections, came, CPUPercent what
	// the control node took of a core meanwhile, and StrangersPercent the attack.
	PerSecond        float64        `json:"per_second"`
	CPUPercent       float64        `json:"cpu_percent"`
	StrangersPercent float64        `json:"strangers_cpu_percent"`
	Held             int64          `json:"held"`             // connections, at the end of the last round
	Status           map[string]int `json:"status,omitempty"` // of the answers in the last round
}

type spread struct {
	P50 float64 `json:"p50_ms"`
	P99 float64 `json:"p99_ms"`
}

// manyStrangers are the addresses that an attack comes from where it is of many.
const manyStrangers = 250

// aGoodKey is the request that is timed: it costs nothing but the door.
const aGoodKey = "GET /v1.1/_noop HTTP/1.1\r\nHost: ecs\r\nAuthorization: Basic %s\r\n\r\n"

// measureDoor measures at one control node with the limits of a deployment.
func measureDoor(ctx context.Context, o options) (*door, error) {
	dir, err := os.MkdirTemp("", "ecs-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	status, err := devcluster.Up(ctx, devcluster.Options{Dir: filepath.Join(dir, "dev"), Controls: 1, Agents: devcluster.NoAgents,
		HTTPPort: o.port + 200, Binaries: o.bin, Limits: true, Debug: o.profiles != ""})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err := devcluster.Down(context.WithoutCancel(ctx), status.Dir); err != nil {
			warn("end the control node: %v", err)
		}
	}()
	d := &door{Requests: o.doorRequests}
	if d.Remembered, err = measureRemembered(); err != nil {
		return nil, err
	}
	visitor, err := newVisitor(ctx, status)
	if err != nil {
		return nil, err
	}
	defer visitor.conn.Close()
	if _, err := visitor.times(ctx, o.doorRequests); err != nil { // it warms up
		return nil, err
	}
	for _, s := range sieges(status.Nodes[0].HTTP, visitor) {
		if !o.attacks.MatchString(s.name) {
			continue
		}
		measured, err := visitor.under(ctx, s, o, status.Nodes[0])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		d.Attacks = append(d.Attacks, measured)
		fmt.Fprintf(os.Stderr, "bench: %s: p99 ratios %.2f\n", s.name, measured.Ratios)
	}
	return d, nil
}

// planned is an attack to measure.
type planned struct {
	name string
	attack.Config
	many bool // from many addresses
}

// sieges are the attacks that must leave a known key's p99 under twice its quiet
// value.
func sieges(endpoint string, v *visitor) []planned {
	addr := strings.TrimPrefix(endpoint, "http://")
	basic := func(key *wire.Key, secret string) string {
		return base64.StdEncoding.EncodeToString([]byte(key.ID + ":" + secret))
	}
	guess := "POST /v2/tasks HTTP/1.1\r\nHost: ecs\r\nAuthorization: Basic " + basic(v.key, "wrong") +
		"\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
	return []planned{
		{name: "1,000 wrong secrets a second, one address", Config: attack.Config{Kind: attack.Guess, Addr: addr, Request: guess, Connections: 20, Rate: 1000}},
		{name: "1,000 wrong secrets a second, 250 addresses", Config: attack.Config{Kind: attack.Guess, Addr: addr, Request: guess, Connections: 1500, Rate: 1000}, many: true},
		{name: "2,000 half-open connections, a byte a second each", Config: attack.Config{Kind: attack.Hold, Addr: addr, Connections: 2000, Rate: 400,
			Request: "GET /v1.1/_noop HTTP/1.1\r\nHost: ecs\r\nX-Slow: "}, many: true},
		{name: "2,000 bodies of a byte a second, one key", Config: attack.Config{Kind: attack.Hold, Addr: addr, Connections: 2000, Rate: 400,
			Request: "POST /v1.1/tasks HTTP/1.1\r\nHost: ecs\r\nAuthorization: Basic " + basic(v.other, v.other.Secret) + "\r\nContent-Length: 5000\r\n\r\n{"}, many: true},
	}
}

// from gives the attack addresses of its own in each round: those of the last
// have spent their guesses.
func (p planned) from(round int) attack.Config {
	c := p.Config
	if !p.many {
		c.From = []string{fmt.Sprintf("127.0.1.%d", round+1)}
		return c
	}
	for i := range manyStrangers {
		c.From = append(c.From, fmt.Sprintf("127.0.%d.%d", round+2, i+1))
	}
	return c
}

// rememberedKeys are in the record while it is measured what it costs to know one
// of them again.
const (
	rememberedKeys = 1000
	rememberedAsks = 100_000
)

// still is a record that nobody changes.
type still struct{ *state.Store }

func (still) Sync(context.Context) error { return nil }
func (still) CaughtUp() bool             { return true }

func measureRemembered() (checked, error) {
	hash, err := api.HashSecret("right")
	if err != nil {
		return checked{}, err
	}
	store := state.NewStore(state.Limits{})
	for i := range rememberedKeys {
		entry, err := proto.Marshal(&ecsv1.Entry{Commands: []*ecsv1.Command{state.ToWire(
			state.PutKey{Key: access.Key{ID: fmt.Sprintf("key%04d", i), Role: access.Run, Hash: hash}}, time.Now())}})
		if err != nil {
			return checked{}, err
		}
		if _, err := store.Apply(uint64(i+1), entry); err != nil {
			return checked{}, err
		}
	}
	ring := api.NewKeyring(nil, access.Run, still{store})
	if _, err := ring.Authenticate(context.Background(), api.Attempt{Key: "key0500", Secret: "right", From: "127.0.0.1"}); err != nil {
		return checked{}, err
	}
	took := make([]float64, rememberedAsks)
	for i := range took {
		began := time.Now()
		_, ok := ring.Remembered("key0500", "right")
		took[i] = float64(time.Since(began).Nanoseconds()) / 1000
		if !ok {
			return checked{}, fmt.Errorf("a key that was right is not remembered")
		}
	}
	slices.Sort(took)
	return checked{at(took, 0.5), at(took, 0.99)}, nil
}

func (d *door) print(w *strings.Builder) {
	fmt.Fprintf(w, "at the door: a good key's request, quiet and while strangers are there; milliseconds, rounds of %d\n\n", d.Requests)
	t := newTable(w, "", "quiet p50", "p99", "attacked p50", "p99", "p99 ratio", "a second", "CPU %", "theirs")
	for _, s := range d.Attacks {
		t.row("%s\t%.3f\t%.3f\t%.3f\t%.3f\t%.2f\t%.0f\t%.0f\t%.0f", s.Name, s.Quiet.P50, s.Quiet.P99, s.Attacked.P50, s.Attacked.P99, s.Ratio, s.PerSecond, s.CPUPercent, s.StrangersPercent)
	}
	t.end()
	fmt.Fprintf(w, "to know a key again: %.1f microseconds at p50, %.1f at p99\n\n", d.Remembered.P50, d.Remembered.P99)
}
