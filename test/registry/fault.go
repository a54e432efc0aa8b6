package registry

import (
	"net/http"
	"strings"
)

// Fault is a way to misbehave.
type Fault int

// The faults.
const (
	None         Fault = iota
	Stall              // accepts every request and never answers
	StallBlob          // sends half of every blob and then nothing
	TooMany            // 429 TOOMANYREQUESTS
	Broken             // 500
	HangUp             // closes the connection without an answer
	Corrupt            // blobs of the right length with wrong bytes
	NoHead             // 405 to HEAD
	NotARegistry       // a web page with 404, for any path
)

type fault struct {
	kind Fault
	left int // requests it still spoils; negative: for ever
}

// Fail makes requests that name repo misbehave, or all requests when repo is
// empty. times is how many requests are spoiled; 0 is all from now on. None
// ends it.
func (r *Registry) Fail(repo string, kind Fault, times int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if times <= 0 {
		times = -1
	}
	r.mu.faults[repo] = &fault{kind: kind, left: times}
}

// misbehave carries out what Fail asked for. It gives the writer to go on with,
// or ended when the request has had its answer.
func (r *Registry) misbehave(w http.ResponseWriter, req *http.Request, repo string) (out http.ResponseWriter, ended bool) {
	blob := req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/blobs/")
	switch r.takeFault(req, repo, blob) {
	case Stall:
		<-req.Context().Done()
		return w, true
	case StallBlob:
		return &halfWriter{ResponseWriter: w, req: req}, false
	case TooMany:
		refuse(w, http.StatusTooManyRequests, "TOOMANYREQUESTS", "you have reached your pull rate limit")
		return w, true
	case Broken:
		refuse(w, http.StatusInternalServerError, "UNKNOWN", "something broke")
		return w, true
	case HangUp:
		panic(http.ErrAbortHandler)
	case Corrupt:
		return &corruptWriter{ResponseWriter: w}, false
	case NoHead:
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "the operation is unsupported")
		return w, true
	case NotARegistry:
		http.Error(w, "<html>an internal page</html>", http.StatusNotFound)
		return w, true
	}
	return w, false
}

func (r *Registry) takeFault(req *http.Request, repo string, blob bool) Fault {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range []string{repo, ""} {
		f := r.mu.faults[name]
		if f == nil || f.left == 0 || f.kind == None {
			continue
		}
		if (f.kind == Corrupt || f.kind == StallBlob) && !blob {
			continue
		}
		if f.kind == NoHead && req.Method != http.MethodHead {
			continue
		}
		if f.left > 0 {
			f.left--
		}
		return f.kind
	}
	return None
}

// corruptWriter flips a bit of every byte written, but for an image's
// configuration, which is the only blob that begins as JSON does.
type corruptWriter struct {
	http.ResponseWriter
	begun, config bool
}

func (w *corruptWriter) Write(p []byte) (int, error) {
	w.config = w.config || !w.begun && isConfig(p)
	w.begun = true
	if w.config {
		return w.ResponseWriter.Write(p)
	}
	spoiled := make([]byte, len(p))
	for i, b := range p {
		spoiled[i] = b ^ 1
	}
	return w.ResponseWriter.Write(spoiled)
}

func isConfig(p []byte) bool { return len(p) > 0 && p[0] == '{' }

// halfWriter sends half of its first piece, unless it is a configuration, and
// blocks until the caller leaves.
type halfWriter struct {
	http.ResponseWriter
	req *http.Request
}

func (w *halfWriter) Write(p []byte) (int, error) {
	if isConfig(p) {
		return w.ResponseWriter.Write(p)
	}
	n, err := w.ResponseWriter.Write(p[:len(p)/2])
	if err != nil {
		return n, err
	}
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
	<-w.req.Context().Done()
	return n, w.req.Context().Err()
}
