package task

import "strings"

// Code says what kind of refusal an Error is. Clients decide on it; it never
// changes its meaning.
type Code string

// The refusals.
const (
	CodeBadRequest    Code = "bad_request"   // the body could not be read at all
	CodeInvalidTask   Code = "invalid_task"  // one or more fields are wrong, see Faults
	CodeImageRef      Code = "image_ref"     // the image reference is not a canonical one
	CodeTooLarge      Code = "too_large"     // body, argument or environment beyond its bound
	CodeUnschedulable Code = "unschedulable" // no node of the cluster could ever hold it
	CodeKeyConflict   Code = "key_conflict"  // same idempotency key, another body
	CodeNotFound      Code = "not_found"
	CodeQueueFull     Code = "queue_full" // retry later
	CodeNotYet        Code = "not_yet"    // designed, not built
	CodeNoLeader      Code = "no_leader"  // nothing was written; retry
	CodeUnknown       Code = "outcome_unknown"
	CodeStale         Code = "stale" // an older attempt, epoch or term
	CodeOutputLost    Code = "output_lost"
	CodeMembership    Code = "membership_refused" // joining or leaving would do harm
	CodeQuota         Code = "quota_exceeded"     // the owner's own share; retry later
	CodeLastAdmin     Code = "last_admin_key"     // the only key that may make keys
	CodeTooMany       Code = "too_many"           // of something of which the record keeps so many
	CodeToken         Code = "token_refused"      // a join token: unknown, used, too old, or for another role
	CodeRotation      Code = "rotation_refused"   // another rotation of the gossip key is under way, or it may not begin now
)

// Fault is one thing wrong with a request.
type Fault struct {
	Pointer string // JSON pointer (RFC 6901) to the offending member
	Detail  string // what is wrong and what would be right
	Code    Code   // empty: CodeInvalidTask
}

// Error is a refusal that a caller can act on.
type Error struct {
	Code    Code
	Message string
	Faults  []Fault
}

// Error gives the message, followed by the faults.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Message)
	for i, f := range e.Faults {
		if i == 0 {
			b.WriteString(": ")
		} else {
			b.WriteString("; ")
		}
		b.WriteString(f.Pointer)
		b.WriteString(" ")
		b.WriteString(f.Detail)
	}
	return b.String()
}

// Is matches another *Error of the same Code, so that errors.Is(err,
// &Error{Code: CodeStale}) works.
func (e *Error) Is(target error) bool {
	other, ok := target.(*Error)
	return ok && other.Code == e.Code
}
