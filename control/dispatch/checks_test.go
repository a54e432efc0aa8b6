package dispatch

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// ask has n askers wait for the next check, and gives when each was told.
func ask(t *testing.T, verdict error, n int) (told []time.Duration, checks int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		c := newChecks(func(context.Context) error { checks++; return verdict }, func(time.Duration) { t.Error("taken for slow") })
		began := time.Now()
		answers := make(chan time.Duration, n)
		for range n {
			go func() {
				if _, err := c.leading(ctx); !errors.Is(err, verdict) {
					t.Errorf("got %v, want %v", err, verdict)
				}
				answers <- time.Since(began)
			}()
		}
		synctest.Wait() // all of them have asked
		go c.run(ctx)
		for range n {
			told = append(told, <-answers)
		}
		if _, err := c.leading(ctx); !errors.Is(err, verdict) {
			t.Errorf("got %v from the next check, want %v", err, verdict)
		}
		if next := time.Since(began); next != checkEvery {
			t.Errorf("got the next check after %s, want %s", next, checkEvery)
		}
	})
	return told, checks
}

func TestManyAskersAreToldLittleByLittle(t *testing.T) {
	const n = 200
	told, checks := ask(t, nil, n)
	if told[0] != 0 || told[toldAtOnce] == 0 || told[n-1] > tellWithin {
		t.Errorf("got the first told after %s, the %dth after %s, the last after %s", told[0], toldAtOnce+1, told[toldAtOnce], told[n-1])
	}
	if checks != 2 {
		t.Errorf("got %d checks, want one for all of them and the next", checks)
	}
}

func TestFewAskersAndBadNewsAreToldAtOnce(t *testing.T) {
	deposed := errors.New("deposed")
	for _, c := range []struct {
		n       int
		verdict error
	}{{toldAtOnce, nil}, {200, deposed}} {
		told, _ := ask(t, c.verdict, c.n)
		if last := told[c.n-1]; last != 0 {
			t.Errorf("%d askers, verdict %v: got the last told after %s, want at once", c.n, c.verdict, last)
		}
	}
}

func TestASlowCheckIsFollowedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		const takes = checkEvery + 100*time.Millisecond
		slow := 0
		c := newChecks(func(context.Context) error { time.Sleep(takes); return nil }, func(took time.Duration) {
			if slow++; took != takes {
				t.Errorf("told of %s", took)
			}
		})
		go c.run(ctx)
		began := time.Now()
		for range 2 {
			if _, err := c.leading(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if got, want := time.Since(began), 2*takes; got != want || slow != 2 {
			t.Errorf("got two checks in %s, want %s; %d were told to be slow", got, want, slow)
		}
	})
}
