package api

import "net/http"

// Code says what kind of error a Problem is. Programs decide on it; it never
// changes its meaning.
type Code string

// The codes of refused or failed requests. A v1 answer may carry an outcome of
// the task as its code besides.
const (
	CodeBadRequest    Code = "bad_request"
	CodeInvalidTask   Code = "invalid_task"
	CodeImageRef      Code = "image_ref"
	CodeUnauthorized  Code = "unauthorized"
	CodeForbidden     Code = "forbidden"
	CodeRateLimited   Code = "rate_limited"
	CodeQuota         Code = "quota_exceeded"
	CodeLastAdmin     Code = "last_admin_key"
	CodeTooMany       Code = "too_many"
	CodeToken         Code = "token_refused"
	CodeNoAuthority   Code = "no_authority"
	CodeNotFound      Code = "not_found"
	CodeNoOutputs     Code = "no_outputs"
	CodeNotFinished   Code = "not_finished"
	CodeNotAllowed    Code = "method_not_allowed"
	CodeKeyConflict   Code = "key_conflict"
	CodeStale         Code = "stale"
	CodeOutputLost    Code = "output_lost"
	CodeMembership    Code = "membership_refused"
	CodeRotation      Code = "rotation_refused"
	CodeTooLarge      Code = "too_large"
	CodeTooSlow       Code = "too_slow"
	CodeMediaType     Code = "unsupported_encoding"
	CodeRange         Code = "range_not_satisfiable"
	CodeUnschedulable Code = "unschedulable"
	CodeInternal      Code = "internal"
	CodeNotYet        Code = "not_yet"
	CodeQueueFull     Code = "queue_full"
	CodeBusy          Code = "busy"
	CodeUnreachable   Code = "unreachable"
	CodeNoLeader      Code = "no_leader"
	CodeUnknown       Code = "outcome_unknown"
)

// CodeInfo is what a code means over HTTP.
type CodeInfo struct {
	Code   Code
	Status int
	Title  string
	// Retry says that the same request may succeed later, unchanged; the
	// answer carries Retry-After.
	Retry   bool
	Meaning string
}

// Codes lists every code, for the handlers and the documentation. It is the
// one place where a code gets its status.
func Codes() []CodeInfo {
	return []CodeInfo{
		{CodeBadRequest, http.StatusBadRequest, "The request cannot be read", false,
			"The body is not one JSON document, or a header or query parameter is wrong."},
		{CodeInvalidTask, http.StatusBadRequest, "The body is not valid", false,
			"One or more members of the body are wrong; errors names each with a JSON pointer."},
		{CodeImageRef, http.StatusBadRequest, "The image reference is not valid", false,
			"The image must be named by repository and tag or digest, never by an id."},
		{CodeUnauthorized, http.StatusUnauthorized, "A key and its secret are needed", false,
			"No key and secret came with the request (HTTP Basic authentication), or they are refused; the detail says which."},
		{CodeForbidden, http.StatusForbidden, "The key's role does not allow this", false,
			"The key is right, but it takes one with another role; the detail says which."},
		{CodeRateLimited, http.StatusTooManyRequests, "A limit is reached", true,
			"More requests came, or are in progress, than the key or the address may have; limit names which."},
		{CodeQuota, http.StatusTooManyRequests, "The key's share of the queue is used up", true,
			"As many tasks of this key wait for a node as may; nothing was accepted."},
		{CodeLastAdmin, http.StatusConflict, "It is the last admin key", false,
			"Without it nobody could make keys; make another admin key first."},
		{CodeTooMany, http.StatusConflict, "There are too many of it", false,
			"The record keeps a bounded number of these; remove some first."},
		{CodeToken, http.StatusForbidden, "The join token is refused", false,
			"It is unknown, used, too old, or for a node of another role; make a new one with ecsctl ca token."},
		{CodeNoAuthority, http.StatusServiceUnavailable, "This node can't sign certificates", true,
			"It does not have the key of the cluster's authority (--ca-key); ask a control node that has."},
		{CodeNotFound, http.StatusNotFound, "Not found", false,
			"There is no such thing, or it belongs to another key."},
		{CodeNoOutputs, http.StatusNotFound, "The task has no outputs", false,
			"The task named none, or its program never ran and so left nothing."},
		{CodeNotFinished, http.StatusConflict, "The task has not finished", false,
			"What is asked for is there once the task has finished; wait for it with GET /v2/tasks/{id}?wait."},
		{CodeNotAllowed, http.StatusMethodNotAllowed, "Method not allowed", false,
			"The path exists but not for this method; Allow names those that do."},
		{CodeKeyConflict, http.StatusConflict, "The idempotency key was used before", false,
			"The same Idempotency-Key came earlier with another body."},
		{CodeStale, http.StatusConflict, "The change came too late", false,
			"What the request refers to has been replaced since."},
		{CodeOutputLost, http.StatusGone, "The output is gone", false,
			"The task ran and its result stands, but the node that kept its output does not have it any more; lost gives size and hash."},
		{CodeMembership, http.StatusConflict, "The node can't join or leave so", false,
			"It would cost the cluster its majority, or the node is not reachable, or belongs elsewhere; the detail says what to do."},
		{CodeRotation, http.StatusConflict, "The gossip key is not rotated now", false,
			"Another rotation is under way, or control nodes of different versions run; the detail says what to do."},
		{CodeTooLarge, http.StatusRequestEntityTooLarge, "Too large", false,
			"The body, an argument or a variable is beyond its bound."},
		{CodeTooSlow, http.StatusRequestTimeout, "The body came too slowly", false,
			"It did not arrive in the time that its size gives it; nothing was done. limit names the bound."},
		{CodeMediaType, http.StatusUnsupportedMediaType, "Content-Encoding is not supported", false,
			"Bodies are taken as they are, not compressed."},
		{CodeRange, http.StatusRequestedRangeNotSatisfiable, "Range not satisfiable", false,
			"The requested range begins beyond the end of the output."},
		{CodeUnschedulable, http.StatusUnprocessableEntity, "No node could ever run it", false,
			"The task asks for more than any node of the cluster has, or for a zone that has none."},
		{CodeInternal, http.StatusInternalServerError, "Internal error", false,
			"A fault of the service. The correlation id finds its log lines."},
		{CodeNotYet, http.StatusNotImplemented, "Not built yet", false,
			"It is designed but not built in this release."},
		{CodeQueueFull, http.StatusServiceUnavailable, "The queue is full", true,
			"The cluster holds as many waiting tasks as it can; nothing was accepted."},
		{CodeBusy, http.StatusServiceUnavailable, "Too much at once", true,
			"This node assembles as many answers, or checks as many secrets, as it can; try again or ask another."},
		{CodeUnreachable, http.StatusServiceUnavailable, "The output cannot be reached", true,
			"The node that holds the output does not answer at the moment."},
		{CodeNoLeader, http.StatusServiceUnavailable, "No leader", true,
			"The control nodes have no leader at the moment; nothing was written."},
		{CodeUnknown, http.StatusServiceUnavailable, "It is not known whether the change was made", true,
			"Repeat the request with the same Idempotency-Key to find out."},
	}
}
