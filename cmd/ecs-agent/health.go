package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"ecs/agent"
)

// health answers whether the process lives, whether the agent can take tasks,
// and with its metrics.
func health(a *agent.Agent, scrape http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "alive") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		switch s := a.Status(); {
		case !s.Connected:
			http.Error(w, "no session with a leader", http.StatusServiceUnavailable)
		case s.Unfit != "":
			http.Error(w, s.Unfit, http.StatusServiceUnavailable)
		default:
			fmt.Fprintf(w, "ready, %d tasks, leader %s, last answer %.1f s ago\n", s.Running, s.Leader, s.Contact.Seconds())
		}
	})
	mux.Handle("GET /metrics", scrape)
	return mux
}

// serveHTTP serves until ctx ends, and then cuts what is left.
func serveHTTP(ctx context.Context, addr string, handler http.Handler) error {
	server := &http.Server{Addr: addr, Handler: handler, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	stopped := context.AfterFunc(ctx, func() { server.Close() })
	defer stopped()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve health checks: %w", err)
	}
	return nil
}
