package api

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"ecs/internal/task"
	"ecs/internal/telemetry"
)

// Who is refused could fill the disk with records and with lines of the log: so many
// a second of each key are written, and of all strangers together, who so hide nobody
// else's, and how many were left out.
const (
	refusedRate  = 10
	refusedBurst = 100
)

// sparing says which of the refusals are written.
type sparing struct {
	by   *limiter
	left atomic.Int64
}

func newSparing() *sparing { return &sparing{by: newLimiter(maxAddresses)} }

// allow reports whether the next one of a key, or with an empty one of a stranger, is
// written, and how many were left out before it.
func (s *sparing) allow(key string) (leftOut int64, ok bool) {
	if _, err := s.by.take(key, bound{rate: refusedRate, burst: refusedBurst}, [2]string{}, time.Now()); err != nil {
		s.left.Add(1)
		return 0, false
	}
	return s.left.Swap(0), true
}

// auditing writes who asked for what, and what came of it.
type auditing struct {
	stream *telemetry.Audit // nil: nothing is written
	argv   bool             // command lines as they are
	mac    func([]byte) []byte

	refused *sparing
}

func newAuditing(cfg *Config) auditing {
	return auditing{stream: cfg.Audit, argv: cfg.AuditArgv, mac: cfg.Sealer.MAC, refused: newSparing()}
}

// begun notes that something was done whose answer may take long, or never be
// whole. The record of the request says what came of it.
func (a *auditing) begun(r *http.Request, x *exchange) {
	if a.stream == nil {
		return
	}
	a.note(r, x, "begun", a.about(r, x))
}

// refused says that a request was turned away for who sent it, or how many did.
func (x *exchange) refused() bool {
	return x.status == http.StatusUnauthorized || x.status == http.StatusForbidden || x.status == http.StatusTooManyRequests
}

// request notes what was changed or refused. What only looks is in the log.
func (a *auditing) request(r *http.Request, x *exchange, took time.Duration) {
	if a.stream == nil {
		return
	}
	looks := (r.Method == http.MethodGet || r.Method == http.MethodHead) && !strings.HasSuffix(x.route, "/attach")
	if looks && !x.refused() {
		return
	}
	attrs := append(a.about(r, x), slog.Int("status", x.status), slog.Duration("took", took))
	if x.refused() {
		leftOut, ok := a.refused.allow(x.owner)
		if !ok {
			return
		}
		if leftOut > 0 {
			attrs = append(attrs, slog.Int64("left_out", leftOut))
		}
	}
	if x.code != "" {
		attrs = append(attrs, slog.String("code", string(x.code)))
	}
	a.note(r, x, "request", attrs)
}

// about is who asks for what.
func (a *auditing) about(r *http.Request, x *exchange) []slog.Attr {
	return []slog.Attr{slog.String("who", x.owner), slog.String("from", host(r.RemoteAddr)),
		slog.String("method", r.Method), slog.String("action", x.route), slog.String("path", r.URL.Path)}
}

func (a *auditing) note(r *http.Request, x *exchange, what string, attrs []slog.Attr) {
	if x.task != "" {
		attrs = append(attrs, slog.String("task", string(x.task)))
	}
	a.stream.Note(r.Context(), what, append(attrs, x.asked...)...)
}

// flush says how many records were left out since the last one.
func (a *auditing) flush(ctx context.Context) {
	if n := a.refused.left.Swap(0); n > 0 {
		a.stream.Note(ctx, "records left out", slog.Int64("left_out", n))
	}
}

// asked describes the task that a request asks for. A command line may hold
// secrets: unless it is asked for, a hash stands for it that the cluster's key
// makes, so that the same one is found again and none can be guessed.
func (a *auditing) asked(s *task.Spec) []slog.Attr {
	if a.stream == nil {
		return nil
	}
	attrs := []slog.Attr{slog.String("image", s.Image), slog.String("network", string(s.Network)), slog.String("user", s.User)}
	if len(s.CapAdd) > 0 {
		attrs = append(attrs, slog.Any("cap_add", s.CapAdd))
	}
	if a.argv {
		return append(attrs, slog.Any("entrypoint", s.Entrypoint), slog.Any("argv", s.Command))
	}
	text, err := json.Marshal([][]string{s.Entrypoint, s.Command})
	if err != nil { // strings can't do that
		return attrs
	}
	return append(attrs, slog.String("argv_hash", hex.EncodeToString(a.mac(text))))
}

func host(addr string) string {
	if h, _, err := net.SplitHostPort(addr); err == nil {
		return h
	}
	return addr
}
