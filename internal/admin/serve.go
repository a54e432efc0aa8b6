package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// Serve answers on the listener until ctx ends; answers under way are given their
// last line first, for a moment.
func Serve(ctx context.Context, l net.Listener, n Node) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /about", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(n.About()) // who hung up asks again
	})
	mux.HandleFunc("POST /join", func(w http.ResponseWriter, r *http.Request) {
		var req joinRequest
		if !read(w, r, &req) {
			return
		}
		stream(w, func(say func(string)) error { return n.Join(r.Context(), req.Addrs, say) })
	})
	mux.HandleFunc("POST /leave", func(w http.ResponseWriter, r *http.Request) {
		var req leaveRequest
		if !read(w, r, &req) {
			return
		}
		// What has begun goes on when the operator hangs up.
		stream(w, func(say func(string)) error { return n.Leave(context.WithoutCancel(r.Context()), req.Force, say) })
	})
	return serve(ctx, l, mux)
}

// ServeAwaiting answers for a daemon that waits for its certificate, until ctx ends or
// start has taken what an operator put in place. It reports whether it did.
func ServeAwaiting(ctx context.Context, l net.Listener, about About, start func() error) (started bool, err error) {
	ctx, end := context.WithCancel(ctx)
	defer end()
	var mu sync.Mutex
	mux := http.NewServeMux()
	mux.HandleFunc("GET /about", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(about) // who hung up asks again
	})
	for _, path := range []string{"POST /join", "POST /leave"} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "the daemon has no certificate yet and is in no cluster: "+
				"make a join token (ecsctl ca token) and give it to ecsctl join --token", http.StatusConflict)
		})
	}
	mux.HandleFunc("POST /start", func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		stream(w, func(func(string)) error {
			if started {
				return nil
			}
			err := start()
			started = err == nil
			return err
		})
		if started {
			end()
		}
	})
	err = serve(ctx, l, mux)
	mu.Lock()
	defer mu.Unlock()
	return started, err
}

// serve serves until ctx ends.
func serve(ctx context.Context, l net.Listener, mux http.Handler) error {
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
	defer cancel()
	err := server.Shutdown(last)
	if errors.Is(err, context.DeadlineExceeded) {
		err = server.Close()
	}
	<-served
	return err
}

// lastWords is how long answers may take to end when the daemon does.
const lastWords = 3 * time.Second

type joinRequest struct {
	Addrs []string `json:"addrs"`
}

type leaveRequest struct {
	Force bool `json:"force"`
}

const maxBody = 64 << 10

func read(w http.ResponseWriter, r *http.Request, into any) bool {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}

// stream answers with what f says, line by line, and how it ends. What f says
// after it returned is dropped.
func stream(w http.ResponseWriter, f func(say func(string)) error) {
	var mu sync.Mutex
	ended := false
	send := func(s Step) {
		_ = json.NewEncoder(w).Encode(s) // the operator may have hung up
		_ = http.NewResponseController(w).Flush()
	}
	err := f(func(text string) {
		mu.Lock()
		defer mu.Unlock()
		if !ended {
			send(Step{Say: text})
		}
	})
	mu.Lock()
	defer mu.Unlock()
	ended = true
	if err != nil {
		send(Step{Error: err.Error()})
		return
	}
	send(Step{Done: true})
}
