package api

import (
	"net/http"
	"time"

	"ecs/internal/newcomers"
)

// Limits of a connection. Whoever sends slowly holds a connection for so long
// and no longer.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 30 * time.Second // a whole request; handlers that wait lift it once they have it
	idleTimeout       = 60 * time.Second
	maxHeaderBytes    = 16 << 10
	maxStreams        = 100 // of one HTTP/2 connection
)

// NewServer makes a server that a slow or idle client can't tie up. It has no
// write timeout, which would end long polls: handlers give each write its own.
func NewServer(handler http.Handler) *http.Server {
	s := &http.Server{
		Handler:           oneLength(handler),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
	}
	(&doorman{set: newcomers.New(maxNewcomers)}).watch(s)
	return s
}

// oneLength refuses a body with two lengths, which Go's HTTP/2 takes, by the first,
// and its HTTP/1 does not.
func oneLength(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.Header.Values("Content-Length")) > 1 {
			http.Error(w, "the request has more than one Content-Length", http.StatusBadRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}
