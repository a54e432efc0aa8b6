package telemetry

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"sync"
	"time"
)

// DefaultRingBytes is how much of its own log a process keeps in memory.
const DefaultRingBytes = 4 << 20

// Ring passes a log's lines of JSON on and keeps the most recent ones, bounded by
// their bytes: a line is encoded once. It is safe for concurrent use.
type Ring struct {
	next  io.Writer
	limit int
	mu    struct {
		sync.Mutex
		kept  [][]byte
		bytes int
	}
}

// NewRing keeps up to limit bytes of what is written through to next, a line each
// time; a limit of zero or less means DefaultRingBytes.
func NewRing(next io.Writer, limit int) *Ring {
	if limit <= 0 {
		limit = DefaultRingBytes
	}
	return &Ring{next: next, limit: limit}
}

// Write implements io.Writer. The error is next's: the line is kept all the same.
func (r *Ring) Write(p []byte) (int, error) {
	r.keep(bytes.Clone(bytes.TrimSuffix(p, []byte("\n"))))
	return r.next.Write(p)
}

// Flush waits until next has written what it was given, where it takes its time.
func (r *Ring) Flush() {
	if f, ok := r.next.(flusher); ok {
		f.Flush()
	}
}

func (r *Ring) keep(line []byte) {
	if len(line) > r.limit {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.kept = append(r.mu.kept, line)
	r.mu.bytes += len(line)
	for r.mu.bytes > r.limit {
		r.mu.bytes -= len(r.mu.kept[0])
		r.mu.kept[0] = nil // the array behind the slice lives on until it grows
		r.mu.kept = r.mu.kept[1:]
	}
}

// Lines gives the kept lines, oldest first, that carry the correlation id, or
// all of them for an empty one. A line is one JSON object without a newline.
func (r *Ring) Lines(cid string) [][]byte {
	return r.matching(member(cid))
}

// member is what a line that carries cid contains. A quote inside a JSON string
// is always escaped, so nothing but the member itself looks like it.
func member(cid string) []byte {
	if cid == "" {
		return nil
	}
	out := bytes.NewBufferString(`"` + CIDKey + `":`)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false) // as slog does
	_ = enc.Encode(cid)      // a string into a buffer
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}

func (r *Ring) matching(pattern []byte) [][]byte {
	r.mu.Lock()
	all := r.mu.kept[:len(r.mu.kept):len(r.mu.kept)]
	copied := make([][]byte, len(all))
	copy(copied, all)
	r.mu.Unlock()
	found := copied[:0]
	for _, line := range copied {
		if bytes.Contains(line, pattern) {
			found = append(found, line)
		}
	}
	return found
}

// Search is what Find looks for.
type Search struct {
	CID string
	// Owner is whose lines: those that name it, and those that name a task and
	// nobody, which the caller is to look up. Empty: everybody's.
	Owner string
	Lines int // at most so many
	Bytes int // together
}

// Found is what Find gives.
type Found struct {
	Lines [][]byte  // oldest first, Redacted
	Cut   bool      // older ones were left out
	Since time.Time // when the oldest line in the ring was written; zero: there is none
}

// Head is what of a line says what it is about.
type Head struct {
	Time  time.Time `json:"time"`
	CID   string    `json:"cid"`
	Owner string    `json:"owner"`
	Task  string    `json:"task"`
}

// HeadOf reads the head of a line; false when it is none of a log.
func HeadOf(line []byte) (h Head, ok bool) {
	return h, json.Unmarshal(line, &h) == nil
}

// Find gives the newest lines of one correlation id, within the bounds.
func (r *Ring) Find(s Search) Found {
	found := Found{Since: r.since()}
	size := 0
	lines := r.matching(member(s.CID))
	for _, line := range slices.Backward(lines) {
		h, ok := HeadOf(line)
		if !ok || h.CID != s.CID || s.Owner != "" && h.Owner != s.Owner && (h.Owner != "" || h.Task == "") {
			continue
		}
		line = Redacted(line)
		if len(found.Lines) == s.Lines || size+len(line) > s.Bytes {
			found.Cut = true
			break
		}
		size += len(line)
		found.Lines = append(found.Lines, line)
	}
	slices.Reverse(found.Lines)
	return found
}

func (r *Ring) since() time.Time {
	r.mu.Lock()
	var oldest []byte
	if len(r.mu.kept) > 0 {
		oldest = r.mu.kept[0]
	}
	r.mu.Unlock()
	h, _ := HeadOf(oldest) // the zero time, if it is not one
	return h.Time
}
