package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"ecs/internal/access"
	"ecs/internal/task"
	"ecs/internal/telemetry"
	"ecs/proto/api"
)

const (
	// authWithin bounds how long a request waits for its secret to be checked. A node
	// with one or two cores that has just started checks 400 keys in that time, or 200
	// while somebody guesses. It is less than clients wait for an answer: who is told
	// to come again keeps no place in the queue.
	authWithin = 28 * time.Second
	// writeStall is how long a reader may take no byte before its answer is
	// given up. Server-wide write timeouts would end every long poll instead.
	writeStall = 2 * time.Minute

	maxCID = 64
)

// exchange is what is known of one request while it is served.
type exchange struct {
	start     time.Time
	owner     string
	principal access.Principal
	task      task.ID // that it made or found made, if it submitted one
	route     string  // its pattern, for metrics
	secure    bool    // it came over TLS
	status    int
	code      api.Code    // of the error that was answered
	asked     []slog.Attr // what the audit stream says beside it
	trace     tracing
}

type exchangeKey struct{}

func exchangeOf(r *http.Request) *exchange {
	x, _ := r.Context().Value(exchangeKey{}).(*exchange)
	return x
}

// outermost is everything that happens around routing: the correlation id, the
// authentication, the log line and the end of a handler that panics.
func (h *Handler) outermost(next http.Handler, open map[string]bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := &exchange{start: h.cfg.Now(), route: "none"}
		cid := r.Header.Get(api.HeaderCID)
		if !saneCID(cid) {
			cid = newCID()
		}
		ctx := context.WithValue(telemetry.WithCID(r.Context(), cid), exchangeKey{}, x)
		r = r.WithContext(ctx)
		x.secure = proxied(r, h.cfg.Proxies) || r.TLS != nil
		rec := &recorder{ResponseWriter: w, control: http.NewResponseController(w), exchange: x, streams: r.ProtoMajor > 1}
		rec.limit()() // of what an earlier request on this connection left
		rec.Header().Set(api.HeaderCID, cid)
		rec.Header().Set("X-Content-Type-Options", "nosniff")
		rec.Header().Set("Cache-Control", "no-store")
		h.trace(rec, r)
		if r.ProtoMajor == 1 && (len(r.TransferEncoding) > 0 || r.ProtoMinor == 0) {
			// Go lets Content-Length stand beside chunks, and under HTTP/1.0 does
			// not look for chunks. So what follows is no request of its own,
			// whoever takes it for one.
			rec.Header().Set("Connection", "close")
		}
		if x.secure {
			rec.Header().Set("Strict-Transport-Security", "max-age=63072000")
		}
		defer h.finished(rec, r)
		end, ok := h.admit(rec, r, open[r.URL.Path])
		if !ok {
			return
		}
		defer end()
		ctx = telemetry.WithOwner(r.Context(), x.owner)
		if x.owner != "" {
			held, release := h.holders.hold(ctx, x.principal, h.cfg.Auth.Counts)
			defer release()
			ctx = held
		}
		r = r.WithContext(ctx)
		if ctx.Err() != nil {
			h.fail(rec, r, ctx.Err())
			return
		}
		next.ServeHTTP(rec, r)
	})
}

// finished accounts for a request, also for one whose handler panicked.
func (h *Handler) finished(rec *recorder, r *http.Request) {
	x := rec.exchange
	panicked := recover()
	aborted := panicked == any(http.ErrAbortHandler)
	begun := x.status != 0
	if panicked != nil && !aborted {
		h.cfg.Log.ErrorContext(r.Context(), "handler panicked", "panic", fmt.Sprint(panicked), "stack", string(debug.Stack()))
		if !begun {
			h.problem(rec, r, &api.Problem{Code: api.CodeInternal})
		}
	}
	took := h.cfg.Now().Sub(x.start)
	h.stats.request(x, r.Method, took)
	h.audit.request(r, x, took)
	x.trace.end(r.Method+" "+x.route, telemetry.CID(r.Context()), x.status)
	h.line(r, x, took, aborted)
	if panicked != nil && (aborted || begun) {
		panic(http.ErrAbortHandler) // the answer is not whole; cut the connection
	}
}

// line logs a request. Of refusals some are left out, see sparing.
func (h *Handler) line(r *http.Request, x *exchange, took time.Duration, aborted bool) {
	level := slog.LevelDebug
	if r.Method != http.MethodGet && r.Method != http.MethodHead || x.status >= http.StatusInternalServerError {
		level = slog.LevelInfo
	}
	if !h.cfg.Log.Enabled(r.Context(), level) {
		return
	}
	line := []any{"method", r.Method, "path", r.URL.Path, "status", x.status, "owner", x.owner, "took", took, "aborted", aborted}
	if x.refused() {
		leftOut, ok := h.refusals.allow(x.owner)
		if !ok {
			return
		}
		if leftOut > 0 {
			line = append(line, "left_out", leftOut)
		}
	}
	if id := telemetry.TraceID(x.trace.parent); id != "" {
		line = append(line, "trace", id)
	}
	if x.task != "" {
		line = append(line, "task", x.task)
	}
	h.cfg.Log.Log(r.Context(), level, "request", line...)
}

// errNoPair answers who sent no key, errRefusedPair whoever's were refused, whatever
// was wrong with them: nobody learns which keys there are.
func errNoPair() error {
	return &api.Problem{Code: api.CodeUnauthorized, Detail: "the request has none: send them with HTTP Basic authentication"}
}

func errRefusedPair() error {
	return &api.Problem{Code: api.CodeUnauthorized, Detail: "those of the request are refused: they are mistyped, revoked or another cluster's"}
}

// authenticate finds out who calls.
func (h *Handler) authenticate(r *http.Request, key, secret string, given bool) (access.Principal, error) {
	if !given {
		return access.Principal{}, errNoPair()
	}
	ctx, cancel := context.WithTimeout(r.Context(), authWithin)
	defer cancel()
	who, err := h.cfg.Auth.Authenticate(ctx, Attempt{Key: key, Secret: secret, From: addressOf(r)})
	switch {
	case err == nil:
		return who, nil
	case errors.Is(err, ErrWrongSecret):
		return access.Principal{}, errRefusedPair()
	case errors.Is(err, ErrBehind):
		return access.Principal{}, &api.Problem{Code: api.CodeNoLeader, Detail: "this node can't find out now whether the key counts; try again or ask another"}
	case errors.Is(err, errFull), ctx.Err() != nil && r.Context().Err() == nil:
		return access.Principal{}, &api.Problem{Code: api.CodeBusy, Detail: "too many secrets wait to be checked"}
	}
	return access.Principal{}, err
}

// saneCID reports whether a caller's correlation id may go into headers, logs
// and the record.
func saneCID(cid string) bool {
	if cid == "" || len(cid) > maxCID {
		return false
	}
	return strings.Trim(cid, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == ""
}

func newCID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails, see crypto/rand
	return hex.EncodeToString(b)
}

// recorder notes the status and gives every write its own deadline.
type recorder struct {
	http.ResponseWriter
	control  *http.ResponseController
	exchange *exchange
	// streams: under HTTP/2 a deadline that passes ends the request even while
	// nothing is written, so there it only stands during a write. Under
	// HTTP/1 it stands until the next, for what is still buffered.
	streams bool
}

// WriteHeader notes the status.
func (rec *recorder) WriteHeader(status int) {
	if rec.exchange.status == 0 {
		rec.exchange.status = status
	}
	defer rec.limit()()
	rec.ResponseWriter.WriteHeader(status)
}

// Write gives the reader writeStall to take the bytes.
func (rec *recorder) Write(p []byte) (int, error) {
	if rec.exchange.status == 0 {
		rec.exchange.status = http.StatusOK
	}
	defer rec.limit()()
	return rec.ResponseWriter.Write(p)
}

// limit sets the deadline of a write; what it gives is to be called behind it.
func (rec *recorder) limit() func() {
	set := func(t time.Time) { _ = rec.control.SetWriteDeadline(t) } // a writer without deadlines is a test's
	set(time.Now().Add(writeStall))
	return func() {
		if rec.streams {
			set(time.Time{})
		}
	}
}

// FlushError sends what was written so far.
func (rec *recorder) FlushError() error {
	defer rec.limit()()
	return rec.control.Flush()
}

// Unwrap lets http.ResponseController reach the connection.
func (rec *recorder) Unwrap() http.ResponseWriter { return rec.ResponseWriter }

// holdOpen lets the request last: the deadline for reading it would otherwise
// end its context.
func holdOpen(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // a writer without deadlines is a test's
}
