package agent

import (
	"math/rand/v2"
	"slices"
	"time"
)

const (
	// firstRetry is the pause after the first failure in a row; it doubles up
	// to soonCeiling while a lease may still be saved, to lateCeiling later.
	firstRetry  = 50 * time.Millisecond
	soonCeiling = 500 * time.Millisecond
	lateCeiling = 2 * time.Second
	// soon is how long after the last contact the node hurries.
	soon = 10 * time.Second
	// maxHops is how many redirects in a row are followed without a pause.
	maxHops = 3
	// A node that fell silent is passed over for passedOver while there are
	// others, and for doubted even when others still take it for the leader.
	passedOver = 5 * time.Second
	doubted    = time.Second
	// refusedPause is how long a node waits that was turned away for good.
	refusedPause = 5 * time.Second
)

// targets chooses which control node to try next, and when. It belongs to the
// session's goroutine.
type targets struct {
	rand   *rand.Rand
	turn   int                  // of the rotation
	hint   string               // where the last answer pointed
	hops   int                  // redirects followed in a row
	fails  int                  // visits in a row that came to nothing
	wait   time.Duration        // before the next visit
	silent map[string]time.Time // when a node last fell silent
	heard  time.Time            // of the last contact
}

func newTargets(random *rand.Rand) targets {
	return targets{rand: random, turn: random.IntN(1 << 16), silent: map[string]time.Time{}}
}

// next gives the node to visit after pause, or "" when there is none.
func (t *targets) next(addrs []string, now time.Time) (addr string, pause time.Duration) {
	pause, t.wait = t.wait, 0
	if addr, t.hint = t.hint, ""; addr != "" {
		return addr, pause
	}
	addrs = slices.Sorted(slices.Values(addrs))
	for range addrs {
		t.turn++
		addr = addrs[t.turn%len(addrs)]
		if !t.wasSilent(addr, now, passedOver) {
			break
		}
	}
	return addr, pause
}

func (t *targets) wasSilent(addr string, now time.Time, within time.Duration) bool {
	fell, ok := t.silent[addr]
	return ok && now.Sub(fell) < within
}

// contact: the leader that is visited has answered a heartbeat.
func (t *targets) contact(now time.Time) {
	t.fails, t.hops, t.heard = 0, 0, now
	clear(t.silent)
}

// again: addr leads, but wants another Hello.
func (t *targets) again(addr string, now time.Time) { t.follow(addr, now) }

// redirected: addr does not lead, and takes to for the leader, if it knows one.
func (t *targets) redirected(addr, to string, now time.Time) {
	if to == "" || to == addr || t.wasSilent(to, now, doubted) {
		t.failed(now)
		return
	}
	t.follow(to, now)
}

// follow visits a node next, and at once unless that has not helped before.
func (t *targets) follow(addr string, now time.Time) {
	t.hint = addr
	if t.hops++; t.hops > maxHops {
		t.failed(now)
	}
}

// fellSilent: addr did not answer in time.
func (t *targets) fellSilent(addr string, now time.Time) {
	t.silent[addr] = now
	t.failed(now)
}

// failed: a visit came to nothing.
func (t *targets) failed(now time.Time) {
	ceiling := lateCeiling
	if now.Sub(t.heard) < soon {
		ceiling = soonCeiling
	}
	t.pause(min(firstRetry<<min(t.fails, 10), ceiling))
	t.fails++
}

// refused: the leader wants nothing to do with this node.
func (t *targets) refused() { t.pause(refusedPause) }

// pause waits between half of d and d before the next visit, so that nodes that
// lost the same leader do not come in step.
func (t *targets) pause(d time.Duration) {
	t.wait = d/2 + time.Duration(t.rand.Int64N(int64(d/2)+1))
}
