package main

import (
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"ecs/internal/initwire"
)

// failure says why the program can't be executed.
type failure struct {
	reason initwire.FailKind
	doing  string
	err    error
}

func (f *failure) Error() string {
	if f.err == nil {
		return f.doing
	}
	return f.doing + ": " + f.err.Error()
}

// maxText bounds what is said of a failure: the stage socket has to take it, because
// nobody reads before this process ends. A command may be long, and is quoted.
const maxText = 8 << 10

func (f *failure) frame() initwire.Failed {
	var errno syscall.Errno
	errors.As(f.err, &errno)
	text := f.Error()
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "..."
	}
	return initwire.Failed{Reason: f.reason, Errno: int(errno), Text: text}
}

// uplink is the second stage's end of the stage socket. A terminal goes along
// with the next write.
type uplink struct{ terminal int }

func (u *uplink) Read(p []byte) (int, error) { return syscall.Read(stageFD, p) }

func (u *uplink) Write(p []byte) (int, error) {
	var rights []byte
	if u.terminal >= 0 {
		rights = unix.UnixRights(u.terminal)
		u.terminal = -1
	}
	return len(p), unix.Sendmsg(stageFD, p, rights, nil, 0)
}

// becomeProgram is the second stage. It waits for the order and ends as the
// program, or with Failed. Only this thread changes; executing ends the others.
func becomeProgram() {
	runtime.LockOSThread()
	unix.CloseOnExec(stageFD)
	up := &uplink{terminal: -1}
	known := rehearse()
	f, err := initwire.NewReader(up).Next()
	if err != nil {
		os.Exit(exitFault) // PID 1 is gone, and so is this process
	}
	order, err := initwire.ParseOrder(f.Payload)
	if err == nil {
		err = prepare(&order, known, up)
	}
	var why *failure
	if !errors.As(err, &why) {
		why = &failure{initwire.BadOther, "prepare the container", err}
	}
	_ = initwire.NewWriter(up).Send(why.frame())
	os.Exit(exitFault)
}

// prepare returns only if the program can't be executed.
func prepare(o *initwire.Order, known beforehand, up *uplink) error {
	if len(o.Argv) == 0 || o.Argv[0] == "" {
		return &failure{initwire.NoCommand, "no command was given", nil}
	}
	syscall.Umask(int(o.Umask))
	if err := becomeRoot(); err != nil {
		return err
	}
	if err := setOOMScoreAdj(o.OOMScoreAdj); err != nil {
		return err
	}
	who, err := findUser(o.User, o.Groups)
	if err != nil {
		return &failure{initwire.BadUser, "user " + strconv.Quote(o.User), err}
	}
	entered, err := makeWorkdir(o.Workdir)
	if err != nil {
		return err
	}
	if err := who.joinGroups(); err != nil {
		return err
	}
	if err := placeFiles(o.Files, who.uid); err != nil {
		return err
	}
	if err := setLimits(o.Rlimits); err != nil {
		return err
	}
	if err := who.become(o.Caps, known.bounding); err != nil {
		return err
	}
	if !entered {
		if err := syscall.Chdir(o.Workdir); err != nil {
			return &failure{initwire.BadWorkdir, "working directory " + strconv.Quote(o.Workdir), err}
		}
	}
	if err := connectStreams(o, up); err != nil {
		return err
	}
	env := completeEnv(o.Env, who.home, o.TTY != nil)
	return execute(o.Argv, env, known.ignored, up)
}

// becomeRoot takes user 0 for what only the container's root may do. No program
// runs yet.
func becomeRoot() error {
	if err := onThread(unix.SYS_SETRESGID, 0, 0, 0); err != nil {
		return &failure{initwire.BadOther, "become group 0", err}
	}
	if err := onThread(unix.SYS_SETRESUID, 0, 0, 0); err != nil {
		return &failure{initwire.BadOther, "become user 0", err}
	}
	return nil
}

// onThread makes a system call on this thread alone.
func onThread(trap uintptr, args ...uintptr) error {
	var a [5]uintptr
	copy(a[:], args)
	if _, _, errno := syscall.RawSyscall6(trap, a[0], a[1], a[2], a[3], a[4], 0); errno != 0 {
		return errno
	}
	return nil
}

const oomScoreAdj = "/proc/self/oom_score_adj"

func setOOMScoreAdj(adj int) error {
	fd, err := syscall.Open(oomScoreAdj, syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	if err == nil {
		_, err = syscall.Write(fd, []byte(strconv.Itoa(adj)))
		syscall.Close(fd)
	}
	if err != nil {
		return &failure{initwire.BadOther, "set oom_score_adj to " + strconv.Itoa(adj), err}
	}
	return nil
}

func setLimits(limits []initwire.Rlimit) error {
	for _, l := range limits {
		// The package's own function, so that the runtime does not put back what
		// it had changed of RLIMIT_NOFILE.
		if err := syscall.Setrlimit(l.Resource, &syscall.Rlimit{Cur: l.Soft, Max: l.Hard}); err != nil {
			return &failure{initwire.BadLimit, "set resource limit " + strconv.Itoa(l.Resource), err}
		}
	}
	return nil
}

// connectStreams puts a session of its own and standard streams under the
// program: pipes, as they are, or the terminal.
func connectStreams(o *initwire.Order, up *uplink) error {
	if _, err := syscall.Setsid(); err != nil {
		return &failure{initwire.BadOther, "begin a session", err}
	}
	if o.TTY != nil {
		return openTerminal(*o.TTY, up)
	}
	if o.Stdin != initwire.StdinNone {
		return nil
	}
	fd, err := syscall.Open("/dev/null", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err == nil {
		err = syscall.Dup3(fd, 0, 0)
	}
	if err != nil {
		return &failure{initwire.BadOther, "open /dev/null for the program's input", err}
	}
	return nil
}

// openTerminal makes a terminal that belongs to the program's user, because it
// is that user by now, and sends its master along with Started.
func openTerminal(size initwire.Size, up *uplink) error {
	master, err := syscall.Open("/dev/ptmx", syscall.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return &failure{initwire.BadOther, "open /dev/ptmx", err}
	}
	slave, err := openSlave(master)
	if err == nil {
		err = unix.IoctlSetWinsize(master, unix.TIOCSWINSZ, &unix.Winsize{Row: size.Rows, Col: size.Cols})
	}
	if err == nil {
		err = unix.IoctlSetInt(slave, unix.TIOCSCTTY, 0)
	}
	for fd := 0; fd <= 2 && err == nil; fd++ {
		err = syscall.Dup3(slave, fd, 0)
	}
	if err != nil {
		return &failure{initwire.BadOther, "set up a terminal", err}
	}
	up.terminal = master
	return nil
}

func openSlave(master int) (int, error) {
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return -1, err
	}
	number, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err != nil {
		return -1, err
	}
	return syscall.Open("/dev/pts/"+strconv.Itoa(number), syscall.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
}

// execute says Started and executes the program. It returns only if that fails.
func execute(argv, env []string, ignored []uintptr, up *uplink) error {
	path, err := lookPath(argv[0], env)
	if err != nil {
		return err
	}
	cleanSlate(ignored)
	now := initwire.Started{Boottime: boottime(), Unix: clock(unix.CLOCK_REALTIME), PID: os.Getpid()}
	if err := initwire.NewWriter(up).Send(now); err != nil {
		return err
	}
	err = syscall.Exec(path, argv, env)
	why := &failure{initwire.NotExecutable, "execute " + strconv.Quote(path), err}
	switch err {
	case syscall.ENOENT, syscall.ENOTDIR:
		why.reason = initwire.NoCommand
	case syscall.E2BIG, syscall.EINVAL:
		why.reason = initwire.BadArg
	case syscall.ENOMEM, syscall.EAGAIN, syscall.EMFILE, syscall.ENFILE, syscall.EIO:
		why.reason = initwire.BadOther
	}
	return why
}

// What package unix has no names for.
const (
	lastSignal = 64
	ignore     = 1 // SIG_IGN
)

// cleanSlate gives the program default signal handling, an empty mask and no
// file descriptor but its standard streams. Executing takes the handlers away, but
// not what is ignored.
func cleanSlate(ignored []uintptr) {
	var action [4]uint64 // SIG_DFL, no flags, empty mask
	for _, s := range ignored {
		_, _, _ = syscall.RawSyscall6(unix.SYS_RT_SIGACTION, s, uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	}
	var empty uint64
	_, _, _ = syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&empty)), 0, 8, 0, 0)
	_ = unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC) // Linux 5.11; all are close-on-exec anyway
}
