package loadtest

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"syscall"

	"ecs/proto/api"
)

// Fault is one way in which requests failed.
type Fault struct {
	What  string // in a few words, the same for all of them
	Count int
	First error
}

// add counts one more.
func add(faults []Fault, err error) []Fault {
	what := whatOf(err)
	i := slices.IndexFunc(faults, func(f Fault) bool { return f.What == what })
	if i < 0 {
		return append(faults, Fault{What: what, Count: 1, First: err})
	}
	faults[i].Count++
	return faults
}

// sorted puts the most frequent first.
func sorted(faults []Fault) []Fault {
	slices.SortFunc(faults, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.What, b.What))
	})
	return faults
}

// odd is an answer that is neither what it must be nor a problem.
type odd struct {
	status, want int
	body         string
}

func (o *odd) Error() string { return fmt.Sprintf("got %d, want %d: %.200s", o.status, o.want, o.body) }

// refusal makes an error of an answer that is not what it must be.
func refusal(resp *http.Response, want int, body []byte) error {
	p := new(api.Problem)
	if json.Unmarshal(body, p) != nil || p.Code == "" {
		return &odd{resp.StatusCode, want, string(body)}
	}
	p.Status = resp.StatusCode
	return p
}

var errFull = errors.New("as many requests are under way as may be")

// whatOf says in a few words what went wrong: nothing in them is of one request
// alone, so that there are few different ones.
func whatOf(err error) string {
	var p *api.Problem
	var o *odd
	var host *net.DNSError
	var cert *tls.CertificateVerificationError
	var late interface{ Timeout() bool }
	switch {
	case errors.As(err, &p):
		return fmt.Sprintf("%d %s", p.Status, p.Code)
	case errors.As(err, &o):
		return strconv.Itoa(o.status)
	case errors.Is(err, errFull):
		return "too many under way"
	case errors.Is(err, context.Canceled):
		return "called off"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.As(err, &host):
		return "host not found"
	case errors.As(err, &cert):
		return "certificate not trusted"
	case errors.As(err, &late) && late.Timeout():
		return "no answer in time"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection broken"
	}
	return "other"
}
