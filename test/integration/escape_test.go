package integration

import (
	"fmt"
	"testing"
	"time"

	"ecs/proto/api"
)

// beats is a program that writes its heartbeat file until somebody ends it.
const beats = `while :; do : >/hb; usleep 20000; done`

// fugitives are programs that try to outlive their end.
var fugitives = map[string]string{
	"daemon":         `(setsid sh -c '` + beats + `' >/dev/null 2>&1 &) & sleep 1000`,
	"deaf":           `trap '' TERM INT HUP QUIT USR1 USR2 ALRM; ` + beats,
	"fork bomb":      `(` + beats + `) & b() { b | b & }; b; while :; do sleep 1000; done`,
	"lowly":          `renice -n 19 $$ >/dev/null; ` + beats,
	"stopped itself": `(` + beats + `) & kill -STOP $$`,
}

// TestNothingOutlivesItsEnd has programs that try to, ended in each way there is.
// The lease ends them from outside: their agent and their init are stopped.
func TestNothingOutlivesItsEnd(t *testing.T) {
	c := ownCluster(t, "--controls", "1", "--agents", "1", "--zones", "a", "--agent-cpus", "2")
	for _, way := range []struct {
		name    string
		limit   time.Duration // of the run
		outcome string        // empty: the caller never hears of it
		end     func(t *testing.T, v victim)
	}{
		{"cancel", 0, api.OutcomeCancelled, func(t *testing.T, v victim) { c.cancel(t, 0, v.task) }},
		{"run limit", 15 * time.Second, api.OutcomeTimedOut, func(*testing.T, victim) {}},
		{"lease", 0, "", both(stopAgent, stopInit)},
	} {
		var victims []victim
		var names []string
		for name, script := range fugitives {
			victims = append(victims, c.victimOf(t, 0, api.TaskRequest{Command: sh(script), Timeouts: api.Timeouts{Run: api.Duration(way.limit)},
				Resources: api.Resources{CPU: api.CPU(100), CPULimit: api.CPU(300), Pids: 64}}))
			names = append(names, name)
		}
		for _, v := range victims {
			way.end(t, v)
		}
		for i, v := range victims {
			what := fmt.Sprintf("%s, by its %s", names[i], way.name)
			if way.outcome != "" {
				if got := c.await(t, v.task, time.Minute); got.Outcome != way.outcome {
					t.Errorf("%s: got %s (%s), want %s", what, got.Outcome, got.Reason, way.outcome)
				}
			} else {
				within(t, lease, what+": it is gone", func() bool { return len(v.processes()) == 0 })
			}
			// With the outcome known nothing of it runs: no look a moment later.
			if left := v.processes(); len(left) > 0 {
				t.Errorf("%s: processes %v are left", what, left)
			}
		}
		if way.outcome == "" {
			c.heal(t, victims[:1])
		}
		c.ready(t)
	}
}
