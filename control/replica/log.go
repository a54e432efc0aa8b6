package replica

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// hcLogger gives raft's logs to slog. Raft calls an unreachable peer an error;
// here it is a warning, for what is an error to us goes through Node.fail.
type hcLogger struct {
	slog    *slog.Logger
	name    string
	implied []any
}

func newHCLogger(l *slog.Logger) *hcLogger { return &hcLogger{slog: l.With("part", "raft")} }

var _ hclog.Logger = (*hcLogger)(nil)

func slogLevel(level hclog.Level) slog.Level {
	switch level {
	case hclog.Warn, hclog.Error:
		return slog.LevelWarn
	case hclog.Info:
		return slog.LevelInfo
	default:
		return slog.LevelDebug
	}
}

// Log implements hclog.Logger.
func (l *hcLogger) Log(level hclog.Level, msg string, args ...any) {
	ctx, to := context.Background(), slogLevel(level)
	if !l.slog.Enabled(ctx, to) {
		return
	}
	plain := make([]any, len(args))
	for i, arg := range args {
		switch arg := arg.(type) {
		case hclog.Format:
			if format, ok := arg[0].(string); ok {
				plain[i] = fmt.Sprintf(format, arg[1:]...)
			}
		case error, fmt.Stringer, string, int, int64, uint64, bool:
			plain[i] = arg
		default:
			plain[i] = fmt.Sprintf("%+v", arg) // its structs would become deep JSON
		}
	}
	l.slog.Log(ctx, to, msg, plain...)
}

func (l *hcLogger) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }
func (l *hcLogger) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l *hcLogger) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l *hcLogger) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l *hcLogger) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

func (l *hcLogger) enabled(level hclog.Level) bool {
	return l.slog.Enabled(context.Background(), slogLevel(level))
}

func (l *hcLogger) IsTrace() bool { return false }
func (l *hcLogger) IsDebug() bool { return l.enabled(hclog.Debug) }
func (l *hcLogger) IsInfo() bool  { return l.enabled(hclog.Info) }
func (l *hcLogger) IsWarn() bool  { return l.enabled(hclog.Warn) }
func (l *hcLogger) IsError() bool { return l.enabled(hclog.Error) }

func (l *hcLogger) ImpliedArgs() []any { return l.implied }

func (l *hcLogger) With(args ...any) hclog.Logger {
	return &hcLogger{slog: l.slog.With(args...), name: l.name, implied: append(l.implied[:len(l.implied):len(l.implied)], args...)}
}

func (l *hcLogger) Name() string { return l.name }

func (l *hcLogger) Named(name string) hclog.Logger { return l.ResetNamed(name) }

func (l *hcLogger) ResetNamed(name string) hclog.Logger {
	return &hcLogger{slog: l.slog, name: name, implied: l.implied}
}

func (l *hcLogger) SetLevel(hclog.Level) {} // slog's handler decides

func (l *hcLogger) GetLevel() hclog.Level {
	for _, level := range []hclog.Level{hclog.Debug, hclog.Info, hclog.Warn} {
		if l.enabled(level) {
			return level
		}
	}
	return hclog.Off
}

func (l *hcLogger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(l.slog.Handler(), slog.LevelInfo)
}

func (l *hcLogger) StandardWriter(o *hclog.StandardLoggerOptions) io.Writer {
	return l.StandardLogger(o).Writer()
}
