package api

import (
	"encoding/base64"
	"fmt"
	"time"
	"unicode/utf8"
)

// TaskRequest is the body of POST /v2/tasks. Only Image is needed; a zero field
// takes its default.
type TaskRequest struct {
	Image      string   `json:"image"`
	Command    []string `json:"command,omitempty"`    // replaces the image's CMD
	Entrypoint []string `json:"entrypoint,omitzero"`  // empty but not nil: none at all
	Env        []string `json:"env,omitempty"`        // KEY=value
	SecretEnv  []string `json:"secret_env,omitempty"` // KEY=value, sealed and never echoed
	Workdir    string   `json:"workdir,omitempty"`
	User       string   `json:"user,omitempty"`

	Stdin     *Content `json:"stdin,omitempty"`      // what the program reads, to its end
	OpenStdin bool     `json:"open_stdin,omitempty"` // keep stdin open for Attach
	TTY       bool     `json:"tty,omitempty"`        // give the program a terminal
	Files     []File   `json:"files,omitempty"`      // written before the program starts
	Outputs   []string `json:"outputs,omitempty"`    // paths to keep when the program has ended

	Resources    Resources         `json:"resources,omitzero"`
	CapAdd       []string          `json:"cap_add,omitempty"`
	Network      string            `json:"network,omitempty"` // none | egress
	Timeouts     Timeouts          `json:"timeouts,omitzero"`
	Retry        Retry             `json:"retry,omitzero"`
	Delivery     string            `json:"delivery,omitempty"` // at_least_once | at_most_once
	Lease        Duration          `json:"lease,omitzero"`
	Placement    Placement         `json:"placement,omitzero"`
	RegistryAuth *RegistryAuth     `json:"registry_auth,omitempty"`
	MaxOutput    Size              `json:"max_output,omitzero"`
	MaxInline    *Size             `json:"max_inline,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	Retention    Duration          `json:"retention,omitzero"`
}

// Content is bytes in a request: text as it is, anything else in base64.
type Content struct {
	Encoding string `json:"encoding,omitempty"` // utf-8 (the default) | base64
	Data     string `json:"data"`
}

// NewContent wraps bytes, whatever they are.
func NewContent(b []byte) Content {
	if utf8.Valid(b) {
		return Content{Encoding: EncodingUTF8, Data: string(b)}
	}
	return Content{Encoding: EncodingBase64, Data: base64.StdEncoding.EncodeToString(b)}
}

// File is a file that the program finds.
type File struct {
	Path    string  `json:"path"`           // absolute and clean
	Mode    string  `json:"mode,omitempty"` // permission bits in octal; default 0644
	Content Content `json:"content"`
}

// SpecFile is a File as accepted; its content is not shown.
type SpecFile struct {
	Path  string `json:"path"`
	Mode  string `json:"mode"`
	Bytes int64  `json:"bytes"`
}

// Resources are what a task reserves and where its ceilings are.
type Resources struct {
	CPU      CPU   `json:"cpu,omitzero"`       // reserved
	CPULimit CPU   `json:"cpu_limit,omitzero"` // ceiling
	Memory   Size  `json:"memory,omitzero"`    // reserved and ceiling
	Pids     int64 `json:"pids,omitzero"`
}

// Timeouts are the four clocks of a task. Zero takes the default; Total has none.
type Timeouts struct {
	Queue Duration `json:"queue,omitzero"`
	Pull  Duration `json:"pull,omitzero"`
	Run   Duration `json:"run,omitzero"`
	Total Duration `json:"total,omitzero"`
}

// Retry says how often an attempt is repeated: two budgets, apart. Nothing is
// ever repeated with at_most_once.
type Retry struct {
	// Infrastructure counts repetitions of attempts lost to the service's own
	// machines, which come at once. Nil takes the default, 3.
	Infrastructure *int `json:"infrastructure,omitempty"`
	// Program counts repetitions of a program that exited with another code than
	// 0. The default is none.
	Program int `json:"program,omitzero"`
	// OnExitCodes are the codes that are worth another try, if not all but 0. 137
	// stands for oom_killed and 124 for timed_out too, which are not retried
	// otherwise.
	OnExitCodes []int `json:"on_exit_codes,omitempty"`
	// Backoff is the pause before the first repetition of a program. It doubles
	// with each, up to 5 minutes, and up to half of it is added at random. The
	// default is one second.
	Backoff Duration `json:"backoff,omitzero"`
}

// Placement says where a task may run.
type Placement struct {
	Zones  []string `json:"zones,omitempty"`
	Spread string   `json:"spread,omitempty"` // spread | pack
}

// RegistryAuth are the caller's own credentials for the image's registry.
type RegistryAuth struct {
	Username string `json:"username"`
	Password string `json:"password"`
	Email    string `json:"email,omitempty"`
}

// Spec is a task as accepted: every default filled in, no secret in it.
type Spec struct {
	Image           string            `json:"image"`
	Command         []string          `json:"command,omitempty"`
	Entrypoint      []string          `json:"entrypoint,omitzero"`
	Env             []string          `json:"env,omitempty"`
	SecretEnv       []string          `json:"secret_env,omitempty"` // names only
	Workdir         string            `json:"workdir,omitempty"`
	User            string            `json:"user,omitempty"`
	StdinBytes      int64             `json:"stdin_bytes,omitempty"`
	OpenStdin       bool              `json:"open_stdin,omitempty"`
	TTY             bool              `json:"tty,omitempty"`
	Files           []SpecFile        `json:"files,omitempty"`
	Outputs         []string          `json:"outputs,omitempty"`
	Resources       Resources         `json:"resources"`
	CapAdd          []string          `json:"cap_add,omitempty"`
	Network         string            `json:"network"`
	Timeouts        Timeouts          `json:"timeouts"`
	Retry           Retry             `json:"retry"`
	Delivery        string            `json:"delivery"`
	Lease           Duration          `json:"lease"`
	Placement       Placement         `json:"placement"`
	HasRegistryAuth bool              `json:"has_registry_auth,omitempty"`
	MaxOutput       Size              `json:"max_output"`
	Labels          map[string]string `json:"labels,omitempty"`
	Retention       Duration          `json:"retention"`
}

// Task is what the service answers about a task.
type Task struct {
	ID             string `json:"id"`
	Owner          string `json:"owner,omitempty"`    // the key it belongs to
	CID            string `json:"cid"`                // correlation id of the request that made it
	TraceID        string `json:"trace_id,omitempty"` // W3C, of that request
	IdempotencyKey string `json:"idempotency_key,omitempty"`
	State          string `json:"state"`
	Outcome        string `json:"outcome,omitempty"` // set once finished
	ExitCode       *int   `json:"exit_code,omitempty"`
	Signal         string `json:"signal,omitempty"` // that ended the program
	Reason         string `json:"reason,omitempty"`
	// Stopping is the outcome an unfinished task was asked to end with.
	Stopping string `json:"stopping,omitempty"`

	Stdout *Stream `json:"stdout,omitempty"`
	Stderr *Stream `json:"stderr,omitempty"`
	// OutputIncomplete says that bytes which were asked for inline could not
	// be had any more: what is here is the beginning.
	OutputIncomplete bool `json:"output_incomplete,omitempty"`

	// Outputs describes the files that were asked for. Nil until the task has
	// finished, and when its program never ran.
	Outputs *Outputs `json:"outputs,omitempty"`

	ImageDigest string    `json:"image_digest,omitempty"`
	Node        string    `json:"node,omitempty"`
	Zone        string    `json:"zone,omitempty"`
	Attempts    []Attempt `json:"attempts"`

	SubmittedAt time.Time `json:"submitted_at,omitzero"`
	FinishedAt  time.Time `json:"finished_at,omitzero"`
	Times       *Times    `json:"times,omitempty"`
	OverheadMS  *float64  `json:"overhead_ms,omitempty"` // total less the program's own run
	// Warm is "hit" where the container had been started ahead of the task, or
	// else why it had not: first, empty, budget, draining, ended. It is empty where
	// the node starts none.
	Warm string `json:"warm,omitempty"`

	// NotBefore is when a task that backs off between two runs of its program may
	// be placed again.
	NotBefore      time.Time `json:"not_before,omitzero"`
	WaitingBecause string    `json:"waiting_because,omitempty"`
	QueuePosition  int       `json:"queue_position,omitempty"` // 1 is next

	Spec Spec `json:"spec"`
}

// Finished reports whether the task has its one outcome.
func (t *Task) Finished() bool { return t.State == StateFinished }

// Stream is what an answer holds of one output stream.
type Stream struct {
	Encoding string `json:"encoding,omitempty"` // utf-8 | base64; absent where data is
	Data     string `json:"data,omitempty"`
	Bytes    int64  `json:"bytes"`  // the program wrote
	Kept     int64  `json:"kept"`   // of them are kept
	SHA256   string `json:"sha256"` // of the kept ones, hex
	// Truncated says that less is kept than was written.
	Truncated bool `json:"truncated"`
}

// Outputs describes the files that a task left: one tar, which Client.Outputs
// gives.
type Outputs struct {
	Bytes   int64  `json:"bytes"` // of the tar
	Entries int    `json:"entries"`
	SHA256  string `json:"sha256"` // of the tar, hex
	// Truncated says that there was more than is kept.
	Truncated bool     `json:"truncated"`
	Missing   []string `json:"missing,omitempty"` // paths that were not there
	// Lost says why the files could not be kept; there is no tar then.
	Lost string `json:"lost,omitempty"`
}

// Encodings of output in JSON.
const (
	EncodingUTF8   = "utf-8"
	EncodingBase64 = "base64"
)

// Content gives the bytes of Data.
func (s *Stream) Content() ([]byte, error) { return decode(s.Encoding, s.Data) }

func decode(encoding, data string) ([]byte, error) {
	switch encoding {
	case EncodingUTF8, "":
		return []byte(data), nil
	case EncodingBase64:
		b, err := base64.StdEncoding.DecodeString(data)
		if err != nil {
			return nil, fmt.Errorf("decode output: %w", err)
		}
		return b, nil
	}
	return nil, fmt.Errorf("decode output: unknown encoding %q", encoding)
}

// Attempt is one try at a task on one node.
type Attempt struct {
	Number  int    `json:"number"`
	Node    string `json:"node"`
	Zone    string `json:"zone"`
	Outcome string `json:"outcome,omitempty"`
	// ExitCode is that of a program that ended by itself or was run again.
	ExitCode *int      `json:"exit_code,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Placed   time.Time `json:"placed,omitzero"`
	Started  time.Time `json:"started,omitzero"`
	Ended    time.Time `json:"ended,omitzero"`
	// RetryAt is when the next attempt could be placed at the earliest, where the
	// task backed off after this one.
	RetryAt time.Time `json:"retry_at,omitzero"`
}

// Times says in milliseconds where a task's time went. A part that the
// answering node cannot know is nil.
type Times struct {
	Accepted  *float64 `json:"accepted_ms,omitempty"`  // request read until proposed
	Committed *float64 `json:"committed_ms,omitempty"` // proposed until committed
	Queued    *float64 `json:"queued_ms,omitempty"`    // until a node was chosen
	Placed    *float64 `json:"placed_ms,omitempty"`    // until that was committed
	Assigned  *float64 `json:"assigned_ms,omitempty"`  // until it was sent
	Image     *float64 `json:"image_ms,omitempty"`     // permission and pull
	Create    *float64 `json:"create_ms,omitempty"`    // container made
	Start     *float64 `json:"start_ms,omitempty"`     // until the program ran
	Run       *float64 `json:"run_ms,omitempty"`       // the program itself
	Output    *float64 `json:"output_ms,omitempty"`    // its end until its last byte and file were kept
	Reported  *float64 `json:"reported_ms,omitempty"`  // until the result was sent
	Recorded  *float64 `json:"recorded_ms,omitempty"`  // until that was committed
	Transfer  *float64 `json:"transfer_ms,omitempty"`  // between clocks
	Answered  *float64 `json:"answered_ms,omitempty"`  // until the answer was written
	Total     *float64 `json:"total_ms,omitempty"`
}

// TaskList is one page of tasks, newest first.
type TaskList struct {
	Tasks []Task `json:"tasks"`
	// Next is the cursor of the next page, empty on the last. A page may be
	// short or empty and still have a next one.
	Next string `json:"next_cursor,omitempty"`
}
