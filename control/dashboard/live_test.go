package dashboard

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// paced is a visit that may look once in a while, to a cluster that changes always.
type paced struct {
	Visit
	each  time.Duration
	spent int // how many looks were asked for
}

func (*paced) Counts() bool { return true }

func (*paced) Changed() (tasks, nodes <-chan struct{}) {
	now := make(chan struct{})
	close(now)
	return now, now
}

func (v *paced) Pace(ctx context.Context) bool {
	v.spent++
	due := time.NewTimer(v.each)
	defer due.Stop()
	select {
	case <-due.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// A page that looks again by itself costs its key what asking again would.
func TestALivePagePaysForEachLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		v := &paced{each: 10 * time.Second}
		w := httptest.NewRecorder()
		turn := &turn{w: w, v: v, r: httptest.NewRequestWithContext(ctx, http.MethodGet, "/ui/tasks/live", nil)}
		looks := 0
		if err := turn.live(func() (any, error) { looks++; return looks, nil }); err != nil {
			t.Fatal(err)
		}
		// The first one is paid for by the request itself.
		if looks < 3 || looks > 1+int(time.Minute/v.each) || v.spent != looks {
			t.Errorf("it looked %d times in a minute and asked for %d more, want one each %s", looks, v.spent, v.each)
		}
		if told := strings.Count(w.Body.String(), "event: changed"); told != looks {
			t.Errorf("it told %d changes of %d", told, looks)
		}
	})
}
