package api

import (
	"fmt"
	"strings"
	"time"
)

// ProblemType is the media type of every error.
const ProblemType = "application/problem+json"

// Problem is an error as the service answers it (RFC 9457). The client returns
// it as a *Problem, which is an error.
type Problem struct {
	Type   string `json:"type"` // relative reference into the documentation
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	Code   Code   `json:"code"`
	CID    string `json:"cid,omitempty"`
	// Errors lists every fault of the request, not only the first.
	Errors []Fault `json:"errors,omitempty"`
	// Limit names the limit that is reached.
	Limit string `json:"limit,omitempty"`
	// Task is the task that the error is about, where there is one.
	Task string `json:"task,omitempty"`
	// Lost describes the output that is gone (CodeOutputLost).
	Lost *LostOutput `json:"lost,omitempty"`

	// RetryAfter is what the Retry-After header asked for.
	RetryAfter time.Duration `json:"-"`
}

// Fault is one thing wrong with a request: with a member of its body, or with a
// header or query parameter.
type Fault struct {
	Pointer   string `json:"pointer"` // RFC 6901; empty: the whole body, or Parameter
	Parameter string `json:"parameter,omitempty"`
	Detail    string `json:"detail"`
}

// LostOutput is what is still known of output that is gone.
type LostOutput struct {
	Stream string `json:"stream"`
	Bytes  int64  `json:"bytes"`
	Kept   int64  `json:"kept"`
	SHA256 string `json:"sha256"`
}

// Error gives the title, the detail, those faults that the detail does not say
// already, and the correlation id.
func (p *Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.Title)
	if p.Title == "" {
		fmt.Fprintf(&b, "HTTP status %d", p.Status)
	}
	if p.Detail != "" {
		b.WriteString(": " + p.Detail)
	}
	for _, f := range p.Errors {
		where := f.Pointer
		if f.Parameter != "" {
			where = f.Parameter
		}
		if fault := where + " " + f.Detail; fault != p.Detail {
			b.WriteString("; " + fault)
		}
	}
	if p.CID != "" {
		fmt.Fprintf(&b, " (cid %s)", p.CID)
	}
	return b.String()
}

// Is matches another *Problem of the same Code, so that
// errors.Is(err, &Problem{Code: CodeNotFound}) works.
func (p *Problem) Is(target error) bool {
	other, ok := target.(*Problem)
	return ok && other.Code == p.Code
}
