package api

import (
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"ecs/internal/task"
	"ecs/internal/telemetry"
)

// Strangers whose key or secret is wrong could fill the disk with records and with
// lines of the log: of either so many a second are written, and how many were left
// out.
const (
	strangersRate  = 10
	strangersBurst = 100
)

// sparing says which of the refusals are written.
type sparing struct {
	rate *rate.Limiter
	left atomic.Int64
}

func newSparing() *sparing {
	return &sparing{rate: rate.NewLimiter(strangersRate, strangersBurst)}
}

// allow reports whether the next one is written, and how many were left out before
// it.
func (s *sparing) allow() (leftOut int64, ok bool) {
	if !s.rate.Allow() {
		s.left.Add(1)
		return 0, false
	}
	return s.left.Swap(0), true
}

// auditing writes who asked for what, and what came of it.
type auditing struct {
	stream   *telemetry.Audit // nil: nothing is written
	argv     bool             // command lines as they are
	mac      func([]byte) []byte
	refusals *sparing
}

func newAuditing(cfg *Config) auditing {
	return auditing{stream: cfg.Audit, argv: cfg.AuditArgv, mac: cfg.Sealer.MAC, refusals: newSparing()}
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
	leftOut := int64(0)
	if x.refused() {
		var ok bool
		if leftOut, ok = a.refusals.allow(); !ok {
			return
		}
	}
	attrs := []slog.Attr{slog.String("who", x.owner), slog.String("from", host(r.RemoteAddr)),
		slog.String("method", r.Method), slog.String("action", x.route), slog.String("path", r.URL.Path),
		slog.Int("status", x.status), slog.Duration("took", took)}
	if leftOut > 0 {
		attrs = append(attrs, slog.Int64("left_out", leftOut))
	}
	if x.code != "" {
		attrs = append(attrs, slog.String("code", string(x.code)))
	}
	if x.task != "" {
		attrs = append(attrs, slog.String("task", string(x.task)))
	}
	a.stream.Note(r.Context(), "request", append(attrs, x.asked...)...)
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
