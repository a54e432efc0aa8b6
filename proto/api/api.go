// Package api is the HTTP protocol of ECS: the JSON types, the error codes, the
// OpenAPI description and a client.
//
// It imports the standard library only, so that anyone can import it. Field
// names on the wire are snake_case, durations are Go-style strings ("90s"),
// sizes are strings with a unit ("128MiB") and CPU is a number of cores (0.25).
// What a field means and which values it takes is said in openapi.yaml, which
// OpenAPI returns.
package api

import (
	_ "embed"
	"time"
)

// OpenAPI is the OpenAPI 3.1 description of every route, as YAML. The handlers
// are tested against it.
func OpenAPI() string { return openAPI }

//go:embed openapi.yaml
var openAPI string

// Headers that the service reads or sets.
const (
	HeaderCID            = "X-Correlation-ID"
	HeaderIdempotencyKey = "Idempotency-Key"
	HeaderLastEventID    = "Last-Event-ID"
	// HeaderTrace is the W3C trace context of the service's own span of a
	// request, where it exports traces.
	HeaderTrace = "Traceresponse"
	// HeaderTruncated names the streams that were cut and how many bytes the
	// program wrote: "stdout=52428800" or "stdout=1, stderr=2". Of outputs it
	// says how much is kept.
	HeaderTruncated = "X-ECS-Truncated"
	// HeaderBytes, HeaderKept and HeaderSHA256 describe one stream: bytes
	// written, bytes kept, and the hash of the kept ones in hex.
	HeaderBytes  = "X-ECS-Bytes"
	HeaderKept   = "X-ECS-Kept"
	HeaderSHA256 = "X-ECS-SHA256"
)

// States of a task, in order.
const (
	StatePending  = "pending"
	StateAssigned = "assigned"
	StateRunning  = "running"
	StateFinished = "finished"
)

// Outcomes of a task or an attempt. The list is closed.
const (
	OutcomeExited           = "exited"
	OutcomeTimedOut         = "timed_out"
	OutcomeOOMKilled        = "oom_killed"
	OutcomeCancelled        = "cancelled"
	OutcomeImageNotFound    = "image_not_found"
	OutcomeImageDenied      = "image_denied"
	OutcomeImageUnavailable = "image_unavailable"
	OutcomeImageInvalid     = "image_invalid"
	OutcomePullTimedOut     = "pull_timed_out"
	OutcomeStartFailed      = "start_failed"
	OutcomeQueueExpired     = "queue_expired"
	OutcomeDeadlineExceeded = "deadline_exceeded"
	OutcomeInterrupted      = "interrupted"
	OutcomeNodeLost         = "node_lost"
)

// The streams of a task.
const (
	Stdout = "stdout"
	Stderr = "stderr"
	// OutputsTar is what LostOutput.Stream says of the tar of a task's outputs.
	OutputsTar = "outputs"
)

// Bounds of requests.
const (
	MaxBodyV1 = 5 << 10
	MaxBodyV2 = 256 << 10
	// MaxBodyWarm bounds a wish for containers that are started ahead.
	MaxBodyWarm = 8 << 10
	// MaxWait is the longest a request may ask to wait.
	MaxWait = time.Hour
	// DefaultWait is what a bare ?wait asks for.
	DefaultWait = 60 * time.Second
	// DefaultInline is how much of each stream a waiting call's answer holds.
	DefaultInline = 1 << 20
	MaxInline     = 64 << 20
	DefaultList   = 100
	MaxList       = 1000
	// MaxOutputs is the size of the tar of a task's outputs at most.
	MaxOutputs = 64 << 20
	MaxKey     = 255 // bytes of an idempotency key
)
