package task

import (
	"slices"
	"time"
)

// Spec is what a caller asks for. It never changes after acceptance, except
// that what only an attempt may know leaves it when the task ends: see Wiped.
type Spec struct {
	Image      string   // canonical reference, never an image id
	Command    []string // replaces the image's CMD when not empty
	Entrypoint []string // replaces the image's ENTRYPOINT when not nil
	Env        []string // KEY=value, in the caller's order
	Workdir    string
	User       string // name or uid, with :group; empty is the image's
	Resources  Resources
	CapAdd     []string // names without CAP_, upper case, sorted
	Network    Network
	Timeouts   Timeouts
	// InfrastructureRetries is how often an attempt lost to infrastructure is
	// repeated under AtLeastOnce.
	InfrastructureRetries int
	// ProgramRetries is how often a program that failed is run again under
	// AtLeastOnce; see ProgramFailed. The two budgets are apart.
	ProgramRetries int
	// RetryExitCodes are the exit codes that are worth another try, in order and
	// each once. Empty: every code but 0.
	RetryExitCodes []int
	// RetryBackoff is the pause before a program is run again for the first time;
	// see Pause. Zero without ProgramRetries.
	RetryBackoff time.Duration
	Delivery     Delivery
	// Lease is how long the program may outlive contact with the control
	// plane, and how long the next attempt waits after contact was lost.
	Lease     time.Duration
	Placement Placement
	MaxOutput int64 // bytes kept of each stream
	Labels    map[string]string
	// Retention is how long the finished record is kept at most.
	Retention time.Duration
	// Secrets is the sealed Secrets message: registry credentials and
	// secret_env. Only control nodes can open it.
	Secrets []byte
	// SecretEnvNames are the names of the sealed environment variables, to
	// tell the caller what was accepted.
	SecretEnvNames []string
	HasAuth        bool // registry credentials are sealed in Secrets
	// DefaultCaps keeps Docker's default capabilities, as v1 tasks always had.
	DefaultCaps bool

	// Stdin is what the program reads from its standard input, which ends
	// behind it. Empty: there is nothing to read.
	Stdin     []byte
	StdinSize int64 // of Stdin; it stays when Stdin is wiped
	// OpenStdin keeps standard input open for whoever attaches.
	OpenStdin bool
	// TTY gives the program a terminal: all it writes is standard output.
	TTY   bool
	Files []File // written before the program starts, in this order
	// Outputs are absolute, clean paths of what is kept of the container's files
	// when the program has ended. None lies in another.
	Outputs []string
}

// File is a regular file that the program finds in its container.
type File struct {
	Path    string // absolute and clean
	Mode    uint32 // permission bits
	Content []byte
	Size    int64 // of Content; it stays when Content is wiped
}

// Wiped is the spec without what only an attempt may know. Names and sizes stay.
func (s Spec) Wiped() Spec {
	s.Secrets, s.Stdin = nil, nil
	s.Files = slices.Clone(s.Files)
	for i := range s.Files {
		s.Files[i].Content = nil
	}
	return s
}

// Resources are what a task reserves and where its ceilings are.
type Resources struct {
	MilliCPU      int64 // reserved, and the weight under contention
	MilliCPULimit int64 // ceiling
	Memory        int64 // bytes; reserved and the ceiling
	Pids          int64
}

// Timeouts are the four clocks. Zero means no limit and is allowed for Total only.
type Timeouts struct {
	Queue, Pull, Run, Total time.Duration
}

// Placement restricts and shapes where a task runs.
type Placement struct {
	Zones  []string // empty: any
	Spread Spread
}

// Spread is how nodes of one zone are chosen.
type Spread string

// The ways to choose a node inside a zone.
const (
	SpreadNodes Spread = "spread" // the emptiest node first
	BinPack     Spread = "pack"   // the fullest that has room first
)

// Secrets are what only the attempt's agent may learn. They travel sealed in
// Spec.Secrets and in the clear only inside mutual TLS.
type Secrets struct {
	Auth *RegistryAuth
	Env  []string // KEY=value
}

// RegistryAuth are a caller's own credentials for the image's registry.
type RegistryAuth struct {
	Username, Password, Email string
}

// Defaults and bounds, DESIGN.md section 5.
const (
	DefaultMilliCPU      = 250
	DefaultMilliCPULimit = 1000
	DefaultMemory        = 256 << 20
	DefaultV1Memory      = 1 << 30
	DefaultPids          = 256
	DefaultMaxOutput     = 1 << 20
	V1MaxOutput          = 64 << 20
	AttachedMaxOutput    = 64 << 20 // with a terminal, or standard input open
	DefaultRetries       = 3        // of infrastructure; of the program there are none
	DefaultBackoff       = time.Second
	DefaultRetention     = 24 * time.Hour

	DefaultQueue        = 24 * time.Hour
	DefaultQueueWaiting = 60 * time.Second // v1, and v2 with ?wait
	DefaultPull         = 5 * time.Minute
	DefaultRun          = 5 * time.Minute

	DefaultLease    = 10 * time.Second
	AtMostOnceLease = 5 * time.Minute
	MaxLease        = 10 * time.Minute
	// FenceAhead is how long before its lease ends an attempt is ended, from inside.
	FenceAhead = 2 * time.Second
	// OuterFenceAhead is how long before its lease ends whatever is left of an
	// attempt is ended from outside its container.
	OuterFenceAhead = time.Second
	Heartbeat       = time.Second

	MinMemory    = 6 << 20
	MaxPids      = 4096
	MaxOutput    = 64 << 20
	MaxArgBytes  = 128<<10 - 1 // one argument or variable; the kernel refuses more
	MaxArgsBytes = 3 << 19     // 1.5 MiB, all of them together
	MaxLabels    = 32
	MaxTimeout   = 7 * 24 * time.Hour
	MaxRetries   = 10 // of each kind
	MaxExitCodes = 32
	MaxBackoff   = time.Hour // as asked for
	MaxFiles     = 64
	MaxFileMode  = 0o777
	FileMode     = 0o644 // unless the caller says otherwise
)

// WithDefaults fills every field the caller left out. waiting says that the
// caller waits for the answer, which shortens the queue clock.
func (s Spec) WithDefaults(api API, waiting bool) Spec {
	r := &s.Resources
	setDefault(&r.MilliCPU, DefaultMilliCPU)
	setDefault(&r.MilliCPULimit, max(DefaultMilliCPULimit, r.MilliCPU))
	setDefault(&r.Pids, DefaultPids)
	if s.OpenStdin || s.TTY {
		setDefault(&s.MaxOutput, AttachedMaxOutput)
	}
	if s.OpenStdin {
		// What was typed into a lost attempt can't be typed again.
		setDefault(&s.Delivery, AtMostOnce)
	}
	setDefault(&s.MaxOutput, DefaultMaxOutput)
	setDefault(&s.Timeouts.Pull, DefaultPull)
	setDefault(&s.Timeouts.Run, DefaultRun)
	setDefault(&s.Retention, DefaultRetention)
	setDefault(&s.Delivery, AtLeastOnce)
	setDefault(&s.Placement.Spread, SpreadNodes)
	if api == V1 {
		setDefault(&r.Memory, DefaultV1Memory)
		setDefault(&s.Network, NetworkEgress)
		setDefault(&s.Timeouts.Queue, DefaultQueueWaiting)
	}
	setDefault(&r.Memory, DefaultMemory)
	setDefault(&s.Network, NetworkNone)
	if waiting {
		setDefault(&s.Timeouts.Queue, DefaultQueueWaiting)
	}
	setDefault(&s.Timeouts.Queue, DefaultQueue)
	if s.Delivery == AtMostOnce {
		setDefault(&s.Lease, AtMostOnceLease)
	}
	setDefault(&s.Lease, DefaultLease)
	if s.ProgramRetries > 0 {
		setDefault(&s.RetryBackoff, DefaultBackoff)
	}
	return s
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
