package initwire

import "time"

// Message is a frame's payload, apart from output and input.
type Message interface {
	Kind() Kind
	append(to []byte) []byte
}

// Hello is the first frame of every connection.
type Hello struct {
	Version int
	Nonce   string
	Ordered bool // init has its Order
	Started bool // the program was executed
	Ended   bool // Failed or Exit follows as soon as the output is through
	// Stdout and Stderr are the lowest offsets that init still holds.
	Stdout, Stderr int64
	// Stdin is up to where init has its input.
	Stdin int64
}

// Started says that the program was executed.
type Started struct {
	Boottime time.Duration // CLOCK_BOOTTIME
	Unix     time.Duration // CLOCK_REALTIME
	PID      int           // in the container
}

// FailKind says why a program was never executed.
type FailKind string

// The kinds of Failed.
const (
	NoCommand     FailKind = "no_command"     // no such file, or not in PATH
	NotExecutable FailKind = "not_executable" // a directory, no permission, no program
	BadUser       FailKind = "bad_user"
	BadWorkdir    FailKind = "bad_workdir"
	BadArg        FailKind = "bad_arg" // arguments and environment are too long
	BadFile       FailKind = "file"    // a file of the order could not be written
	BadLimit      FailKind = "rlimit"  // a resource limit of the order was refused
	BadOther      FailKind = "other"
)

// Failed says that the program was never executed and never will be.
type Failed struct {
	Reason FailKind
	Errno  int    // 0 where no system call failed
	Text   string // a sentence for the caller
}

// Cause is what ended a program.
type Cause string

// The causes.
const (
	CauseProgram  Cause = "program" // it ended, or a signal of the task's own did
	CauseRunLimit Cause = "run_limit"
	CauseLease    Cause = "lease"
	CauseKilled   Cause = "killed" // KindKill
)

// Exit is how the program ended. No process of the container but init is left.
type Exit struct {
	Code      int // 128+Signal for a program that a signal ended
	Signal    int
	Cause     Cause
	Started   time.Duration // CLOCK_BOOTTIME
	Ended     time.Duration // CLOCK_BOOTTIME, when the program was seen to end
	StartedAt time.Duration // CLOCK_REALTIME
	// Stdout and Stderr are how many bytes the program wrote in all.
	Stdout, Stderr int64
	// Passed: somebody outside, not the agent, sent the program a signal through init.
	// An init or an agent of before knows nothing of it, so it is there only where it is
	// true.
	Passed bool
}

// StdinTaken is up to where the program has taken its input.
type StdinTaken struct {
	Offset int64
	Closed bool // the program has closed its end; more would be dropped
}

// Position is up to where an agent has each stream for good.
type Position struct{ Stdout, Stderr int64 }

// Resume answers every Hello.
type Resume Position

// Ack is a Resume during the connection.
type Ack Position

// Lease moves the moment at which init ends everything. An earlier one than
// before is ignored.
type Lease struct{ Deadline time.Duration } // CLOCK_BOOTTIME

// StdinClose ends the program's input, after what was sent before.
type StdinClose struct{}

// Resize sets the terminal's size.
type Resize Size

// Signal sends the program a signal.
type Signal struct{ Number int }

// Kill ends everything at once.
type Kill struct{}

// Done says that the agent has the Exit, or the Failed.
type Done struct{}

// Size is a terminal's.
type Size struct{ Rows, Cols uint16 }

// StdinMode says what a program's standard input is.
type StdinMode byte

// The modes. With a terminal all of them write to it.
const (
	StdinNone   StdinMode = iota // /dev/null
	StdinInline                  // the order's Input, then its end
	StdinStream                  // the order's Input, then Stdin frames
)

// Order says what to run.
type Order struct {
	// Argv is the whole command line. Argv[0] is looked for as Docker does, in
	// the container and in Env's PATH.
	Argv []string
	// Env is the whole environment. PATH, HOME, HOSTNAME and, with a terminal,
	// TERM get Docker's values where it lacks them.
	Env     []string
	Workdir string // "": /. It is made where it is missing
	// User is as in Docker: "", name, uid, name:group, uid:gid.
	User   string
	Groups []string // further groups, by name or number
	TTY    *Size
	Stdin  StdinMode
	// Input counts as the stream's first bytes: Stdin frames go on behind it.
	Input    []byte
	Files    []File
	Rlimits  []Rlimit
	RunLimit time.Duration // 0: none
	Lease    time.Duration // as in Lease
	// OOMScoreAdj is the program's.
	OOMScoreAdj int
	// Caps is a set of capabilities (1 << number), the program's bounding set. A
	// program that runs as root has them; of the container's own it has no others.
	Caps  uint64
	Umask uint32
}

// File is written before the program begins, as its user.
type File struct {
	Path    string // absolute, or in the working directory
	Mode    uint32
	Content []byte
}

// Rlimit is one resource limit.
type Rlimit struct {
	Resource   int // RLIMIT_...
	Soft, Hard uint64
}

// Kind of the message.
func (Hello) Kind() Kind { return KindHello }

// Kind of the message.
func (Started) Kind() Kind { return KindStarted }

// Kind of the message.
func (Failed) Kind() Kind { return KindFailed }

// Kind of the message.
func (Exit) Kind() Kind { return KindExit }

// Kind of the message.
func (StdinTaken) Kind() Kind { return KindStdinTaken }

// Kind of the message.
func (Resume) Kind() Kind { return KindResume }

// Kind of the message.
func (Order) Kind() Kind { return KindOrder }

// Kind of the message.
func (Lease) Kind() Kind { return KindLease }

// Kind of the message.
func (Ack) Kind() Kind { return KindAck }

// Kind of the message.
func (StdinClose) Kind() Kind { return KindStdinClose }

// Kind of the message.
func (Resize) Kind() Kind { return KindResize }

// Kind of the message.
func (Signal) Kind() Kind { return KindSignal }

// Kind of the message.
func (Kill) Kind() Kind { return KindKill }

// Kind of the message.
func (Done) Kind() Kind { return KindDone }
