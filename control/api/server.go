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
		Handler:           handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
	}
	(&doorman{set: newcomers.New(maxNewcomers)}).watch(s)
	return s
}
