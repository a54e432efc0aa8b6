// Package runtime says what running a container means. Package docker is the
// real thing and package fake the scripted one; both pass runtimetest.
//
// Whoever implements Container decides how bytes and the exit leave the
// container; the runner only sees a Sink and an Exit.
package runtime

import (
	"context"
	"errors"
	"io"
	"strings"
	"syscall"
	"time"

	"ecs/internal/task"
)

// Runtime makes containers on one engine for one agent. It never touches a
// container that carries another agent's labels. All methods are safe for
// concurrent use and return when ctx ends.
type Runtime interface {
	// Probe asks the engine who it is. An error means the node can run
	// nothing now; its text is shown to people.
	Probe(ctx context.Context) (Engine, error)
	// Create makes the container of one attempt and starts nothing. It is
	// safe to repeat: a container left by an earlier Create of the same token
	// is replaced. Errors are *Failure where the outcome is known (StartFailed,
	// and ImageNotFound with ErrNoImage when the image vanished meanwhile, which
	// another look for it may mend); any other error is the engine's and counts
	// as Interrupted.
	Create(ctx context.Context, o Order) (Container, error)
	// Park makes a container for no attempt yet and starts it: its first process
	// waits for the order. It gives way to every Start that waits for its turn.
	// Errors are as Create's.
	Park(ctx context.Context, p Parking) (Parked, error)
	// Adopt takes up the container of an attempt that an earlier process of this
	// agent started, whether its program still runs or has ended meanwhile. What
	// follows on the Container is Wait, Kill and Remove, as after Start. ErrGone:
	// there is no such container, or it never got its order.
	Adopt(ctx context.Context, a Adoption) (Container, error)
	// Reap removes every container that carries this agent's labels and that
	// keep does not claim, running or not, and says how many they were. One that
	// was bound is its attempt's. One that is parked is claimed by whoever parked
	// it, in this process, until Remove: one that an earlier process parked is
	// nobody's.
	Reap(ctx context.Context, keep func(task.Token) bool) (int, error)
}

// Engine describes a container engine.
type Engine struct {
	Description string // for people: "Docker 20.10.24, API 1.41, cgroup v1"
	Version     string
	APIVersion  string
	MilliCPU    int64 // what the machine has
	Memory      int64
	Egress      bool   // NetworkEgress can be given with the hosts closed off
	EgressWhy   string // why not
}

// Order is what Create needs.
type Order struct {
	Token     task.Token
	CID       string
	Spec      task.Spec
	SecretEnv []string
	Image     Image
	Output    Sink
	// Deadline gives the end of the attempt's lease as it stands, absolute on
	// CLOCK_BOOTTIME. It is asked right before the program begins; from then on
	// Renew moves it.
	Deadline func() time.Duration
	// May is asked right before the program is told to begin, after every wait
	// for a turn, by the goroutine of Start. An error keeps it from being told,
	// and Start returns it. It can be asked twice; nil allows.
	May func() error
}

// Adoption is what Adopt needs.
type Adoption struct {
	Token    task.Token
	Spec     task.Spec
	Deadline func() time.Duration // as in Order
	// Output takes the rest of the streams: from Stdout and Stderr on, the
	// number of bytes of each that an earlier process has dealt with for good.
	// What was written between those and the first byte that the container
	// still holds is lost (a disk was full): the rest follows all the same, and
	// a writer that is a Skipper is told first.
	Output         Sink
	Stdout, Stderr int64
}

// ErrGone is answered by Adopt when there is nothing to adopt.
var ErrGone = errors.New("the attempt has no container here")

// Image is an image that is present on the engine and that the caller may use.
type Image struct {
	ID     string // the engine's own full id, "sha256:..."; what Create runs
	Digest string // the registry's manifest digest, or ID for a local image
}

// Sink takes what the program writes. Its writers never block for a reader
// downstream, never fail for being full (they drop, count and say so in the
// Stream), and are used by one goroutine each. Of a stream of which more than
// task.HeadBytes have been written, what a Write has returned for outlives this
// process as far as the disk lets it, so the runtime need not keep it any longer.
// Up to that it keeps every byte that an Adopt did not say to have, until Kill or
// Remove, for the Adopt of a later process.
type Sink struct{ Stdout, Stderr io.Writer }

// Skipper is a Sink's writer that wants to know of bytes that it never gets. It
// is told between two Writes, by the goroutine that writes.
type Skipper interface{ Skip(bytes int64) }

// Container is one attempt's container. Its methods may be called from
// different goroutines.
type Container interface {
	// Start asks the order's May, begins the program and returns when it runs
	// or has already ended.
	// A *Failure (StartFailed) says that the program could not be started for
	// a reason of the caller's (no such command, bad user, ...).
	Start(ctx context.Context) error
	// Wait blocks until the program has ended and its last byte is in the
	// Sink. Called once, after Start returned nil. When it returns without an
	// error, no process of the container is left. A *Failure (StartFailed)
	// says what Start could not know yet: the program was never executed. Any
	// other error means that how the program ended is not known.
	//
	// The exit and what the container still holds of the streams last until
	// Remove: a process that adopts the container after an earlier one had the
	// exit, and was killed before it could write that down, gets the same.
	Wait(ctx context.Context) (Exit, error)
	// Kill ends every process of the container at once. It is idempotent and
	// a nil error means that none is left and none will be: a container that
	// was not started yet can't be any more.
	Kill(ctx context.Context) error
	// Renew moves the end of the lease, absolute on CLOCK_BOOTTIME: the program
	// is ended from inside task.FenceAhead before it, and from outside
	// task.OuterFenceAhead before it, without any help of the agent's. It never
	// blocks. Only a later end than before counts. It may be called while Start is
	// under way.
	Renew(end time.Duration)
	// Input gives the program's standard input more bytes, and its end with eof.
	// It blocks while the program does not read. ErrNoInput where the order had
	// no stream for it.
	Input(ctx context.Context, p []byte, eof bool) error
	// Resize sets the terminal's size. It does nothing without a terminal.
	Resize(ctx context.Context, rows, cols uint16) error
	// Signal sends the program a signal.
	Signal(ctx context.Context, signal syscall.Signal) error
	// CopyOut gives a tar of what lies at an absolute and clean path, a file or a
	// directory with everything in it, after Wait or Kill. Names begin with the
	// path's last element. A link on the way to it is followed inside the
	// container, one at its end is not. ErrNoPath: nothing lies there, or a loop
	// of links does.
	//
	// The caller closes the reader, which gives an error once ctx has ended;
	// until then Remove may wait for it.
	CopyOut(ctx context.Context, path string) (io.ReadCloser, error)
	// Remove removes the container, its volumes and everything made for it,
	// whatever state it is in. It is idempotent.
	Remove(ctx context.Context) error
}

// Exit is how a program ended.
type Exit struct {
	Code      int
	Signal    string // "SIGKILL", ..., when a signal ended it and that is known
	OOMKilled bool   // it ended because the kernel killed it for want of memory
	// Interrupted is not empty when somebody else took the container away:
	// killed or removed from outside, or the engine went away under it.
	Interrupted string
	// RunLimit: it was ended at its spec's run limit.
	RunLimit bool
	// Lapsed: it was ended because its lease was over.
	Lapsed    bool
	StartedAt time.Time
	Run       time.Duration // the program's own time
	Output    time.Duration // from its end until its last byte was read
}

// Failure is an error whose outcome is known.
type Failure struct {
	Outcome task.Outcome
	Reason  string // one sentence for the caller
	Err     error  // what the engine or registry said, or nil
}

// Error gives the reason and the cause.
func (f *Failure) Error() string {
	if f.Err == nil {
		return f.Reason
	}
	return f.Reason + ": " + f.Err.Error()
}

// maxReason is how many bytes of a reason are kept.
const maxReason = 1 << 10

// Reason cuts a reason to what a record has room for, between two characters.
func Reason(text string) string {
	if len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason], "") + "..."
	}
	return text
}

// Unwrap gives the cause.
func (f *Failure) Unwrap() error { return f.Err }

// ErrNoInput: the program's standard input is not open.
var ErrNoInput = errors.New("the program's standard input is closed or was not asked for")

// ErrNoPath is answered by CopyOut where there is nothing.
var ErrNoPath = errors.New("there is nothing at that path")

// ErrNoImage is answered by ImageStore.Inspect for an image that is not there.
var ErrNoImage = errors.New("no such image on this engine")

// ImageStore is the engine's own store of images. Package images decides with
// it what to pull and who may use what.
type ImageStore interface {
	// Inspect finds an image by canonical reference (never by id), or ErrNoImage.
	Inspect(ctx context.Context, ref string) (StoredImage, error)
	// Pull fetches repository@digest with the caller's own credentials and
	// ends with ctx. progress is called whenever bytes arrived. Errors are
	// *Failure where the outcome is known.
	Pull(ctx context.Context, ref string, auth *task.RegistryAuth, progress func()) error
	// List names every tagged reference that the engine holds.
	List(ctx context.Context) ([]string, error)
}

// StoredImage is one image of the engine's store.
type StoredImage struct {
	ID          string
	RepoDigests []string // "repository@sha256:..."; empty: built or imported here
	Platform    string   // "linux/amd64"
}
