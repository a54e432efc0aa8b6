package daemon

import (
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"
)

// checkDebug refuses an address that others could reach: profiles show what a
// process holds.
func checkDebug(addr string) error {
	if addr == "" || Loopback(addr) {
		return nil
	}
	return fmt.Errorf("--debug-addr %s: want host:port on loopback, such as 127.0.0.1:6060", addr)
}

// serveDebug serves Go's profiles until what it gives is called, which waits.
func serveDebug(addr string) (closeDebug func(), err error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("serve profiles: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l) // ends with Close
	}()
	return func() {
		_ = server.Close() // profiles under way are cut
		<-served
	}, nil
}
