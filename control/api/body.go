package api

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"ecs/proto/api"
)

const (
	// bodyGrace is how long a body may take whatever its size, and bodyRate how many
	// bytes of it give another second; readTimeout bounds all of it. Who sends a byte
	// a second would else hold its share of the requests in progress for that long.
	bodyGrace = 10 * time.Second
	bodyRate  = 1 << 10

	// refusedWait is how long the body of a request that was refused by its headers
	// is waited for, so that a client that sends first and reads then finds its
	// answer, and keeps its connection; refusedMost bounds such a body, and
	// maxPatience how many are waited for at the same time, patiencePerAddress of them
	// of one address: those that have begun a body with no mind to end it are many.
	refusedWait        = time.Second
	refusedMost        = 256 << 10
	maxPatience        = 64
	patiencePerAddress = 4
)

// readBody takes a body of at most limit bytes, as it is.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if e := r.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return nil, refusal(api.CodeMediaType, "send the body without Content-Encoding")
	}
	tooLarge := refusal(api.CodeTooLarge, fmt.Sprintf("the body may have %s", api.Size(limit)))
	if r.ContentLength > limit {
		return nil, tooLarge
	}
	in := newSteady(w, http.MaxBytesReader(w, r.Body, limit))
	body, err := io.ReadAll(in)
	var beyond *http.MaxBytesError
	switch {
	case errors.As(err, &beyond):
		return nil, tooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, in.tooSlow()
	case err != nil:
		return nil, refusal(api.CodeBadRequest, "the body did not arrive: "+err.Error())
	}
	return body, nil
}

// noBody refuses anything but an empty body or an empty object.
func noBody(w http.ResponseWriter, r *http.Request) error {
	body, err := readBody(w, r, api.MaxBodyV1)
	if err != nil || len(body) == 0 {
		return err
	}
	f := new(faults)
	if root, ok := decode(body, f); ok {
		fieldsOf(root, f).done()
	}
	return f.err()
}

// steady reads a body that has to come at bodyRate after bodyGrace. Behind its end
// there is no deadline: the server reads on to see whether the client goes, and takes
// one that passes for that.
type steady struct {
	from    io.Reader
	control *http.ResponseController
	began   time.Time
	due     time.Time
	got     int64
}

func newSteady(w http.ResponseWriter, from io.Reader) *steady {
	s := &steady{from: from, control: http.NewResponseController(w), began: time.Now()}
	s.extend()
	return s
}

// Read implements io.Reader. os.ErrDeadlineExceeded: it came too slowly.
func (s *steady) Read(p []byte) (int, error) {
	n, err := s.from.Read(p)
	s.got += int64(n)
	switch {
	case errors.Is(err, io.EOF):
		s.deadline(time.Time{})
	case err == nil:
		s.extend()
	}
	return n, err
}

// extend moves the deadline when that is worth it.
func (s *steady) extend() {
	within := min(bodyGrace+time.Duration(s.got)*time.Second/bodyRate, readTimeout)
	if due := s.began.Add(within); due.Sub(s.due) >= time.Second {
		s.due = due
		s.deadline(due)
	}
}

func (s *steady) deadline(t time.Time) {
	_ = s.control.SetReadDeadline(t) // a writer without deadlines is a test's
}

func (s *steady) tooSlow() error {
	return &api.Problem{Code: api.CodeTooSlow, Limit: limitBodyRate,
		Detail: fmt.Sprintf("%d bytes of the body came in %s; it has %s, a second more for every KiB that came, and %s in all",
			s.got, time.Since(s.began).Round(time.Second), bodyGrace, readTimeout)}
}

// turnAway takes the body of a request that is refused, for as long as it is worth.
// One that does not come costs its connection, at once: neither the answer nor the
// connection waits for it.
func (g *gates) turnAway(w http.ResponseWriter, r *http.Request) {
	if r.Body == http.NoBody || r.ProtoMajor > 1 || r.Header.Get("Expect") != "" {
		return // there is none, or the server ends it by itself
	}
	control := http.NewResponseController(w)
	patience := time.Now() // what came with the headers is there
	if end, err := g.patience.take(addressOf(r), bound{atOnce: patiencePerAddress}, [2]string{}, patience); err == nil {
		defer end()
		select {
		case g.patients <- struct{}{}:
			defer func() { <-g.patients }()
			patience = patience.Add(refusedWait)
		default:
		}
	}
	_ = control.SetReadDeadline(patience) // a writer without deadlines is a test's
	if _, err := io.CopyN(io.Discard, r.Body, refusedMost); errors.Is(err, io.EOF) {
		return
	}
	w.Header().Set("Connection", "close")
	_ = control.SetReadDeadline(time.Now()) // nor does the server read on
}
