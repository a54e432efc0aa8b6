package dashboard

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"ecs/internal/access"
	"ecs/proto/api"
)

const (
	// beat keeps a stream from looking dead to what is between. With each it is
	// looked at again what no change of the record tells: who leads, and whether
	// the session still counts.
	beat = 15 * time.Second
	// pause is how often a page is told of changes at most. A busy cluster changes
	// a thousand times a second.
	pause = time.Second
)

func (t *turn) operates() bool { return t.role.May(access.Operate) }

// liveAt is where the changes of a page behind what it shows are told.
func (t *turn) liveAt(path string, shown any) string {
	q := t.r.URL.Query()
	q.Set("seen", digest(shown))
	return t.d.base + path + "?" + q.Encode()
}

// digest tells one content of a page from another.
func digest(v any) string {
	text, err := json.Marshal(v)
	if err != nil { // none of our types can do that
		text = []byte(err.Error())
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:12])
}

// live tells, as server-sent events, that a page shows something else by now; the
// page then asks for itself again. A change of what it does not show is not told.
func (t *turn) live(data func() (any, error)) error {
	seen := t.r.URL.Query().Get("seen")
	if id := t.r.Header.Get(api.HeaderLastEventID); id != "" {
		seen = id
	}
	control := http.NewResponseController(t.w)
	begun := false
	begin := func() {
		_ = control.SetReadDeadline(time.Time{}) // it lasts; a writer without deadlines is a test's
		t.w.Header().Set("Content-Type", "text/event-stream")
		t.w.Header().Set("X-Accel-Buffering", "no")
		t.w.WriteHeader(http.StatusOK)
		begun = true
	}
	beats := time.NewTicker(beat)
	defer beats.Stop()
	for t.v.Counts() {
		tasks, nodes := t.v.Changed() // before it is looked at, so that none is missed
		now, err := data()
		if err != nil && !begun {
			return err
		}
		if err != nil {
			return nil // the browser comes again and is told why
		}
		if !begun {
			begin()
		}
		text := ": \n\n"
		if d := digest(now); d != seen {
			seen = d
			text = fmt.Sprintf("id: %s\nevent: changed\ndata:\n\n", d)
		}
		if _, err := io.WriteString(t.w, text); err != nil {
			return nil // nobody reads it any more
		}
		_ = control.Flush()
		if !t.waitFor(tasks, nodes, beats.C) || !t.v.Pace(t.r.Context()) {
			return nil
		}
	}
	return nil
}

// waitFor returns when something has changed or a beat is due, a pause after the
// call at the earliest; false: nobody waits any more.
func (t *turn) waitFor(tasks, nodes <-chan struct{}, beats <-chan time.Time) bool {
	gone := t.r.Context().Done()
	rest := time.NewTimer(pause)
	defer rest.Stop()
	select {
	case <-rest.C:
	case <-gone:
		return false
	}
	select {
	case <-tasks:
	case <-nodes:
	case <-beats:
	case <-gone:
		return false
	}
	return true
}
