package agent

import (
	"errors"
	"slices"
	"testing"
	"time"
)

func TestUnfitEngineIsToldAtOnceAndHealed(t *testing.T) {
	inBubble(t, func(c *cluster) {
		c.connected(5 * time.Second)
		last := func() string { return c.beats[len(c.beats)-1].GetUnfit() }
		c.engine.fail("probe", errors.New("no such socket"))
		c.until("word of it", probeEvery+100*time.Millisecond, func() bool { return last() != "" })
		c.seen(func() {
			if got, want := last(), "the container engine does not work: no such socket"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
		c.engine.fail("probe", errors.New("still no such socket"))
		time.Sleep(3 * probeEvery)
		c.seen(func() {
			if got, want := last(), "the container engine does not work: no such socket"; got != want {
				t.Errorf("got %q, want the first word to stand: every change is committed", got)
			}
		})
		if s := c.agent.Status(); s.Unfit == "" || !s.Connected {
			t.Errorf("got %+v, want unfit and connected", s)
		}
		c.engine.heal("probe")
		c.until("its recovery", probeEvery+100*time.Millisecond, func() bool { return last() == "" })
		c.engine.hang("probe")
		c.until("word of the hang", slowProbes*(probeEvery+probeTimeout)+time.Second, func() bool { return last() != "" })
	})
}

func TestNewImagesAreTold(t *testing.T) {
	inBubble(t, func(c *cluster) {
		c.connected(5 * time.Second)
		time.Sleep(imagesPause)
		tok := c.assign("t1", command("exit 0"))
		c.result(tok, time.Second)
		c.until("the list", imagesPause, func() bool {
			return slices.Equal(c.beats[len(c.beats)-1].GetImages(), []string{"program"})
		})
		time.Sleep(2 * imagesEvery)
		c.seen(func() {
			said := 0
			for _, b := range c.beats {
				if b.GetHasImages() && len(b.GetImages()) > 0 {
					said++
				}
			}
			if said != 1 {
				t.Errorf("got the list %d times on one session, want once", said)
			}
		})
	})
}
