// Package initwire is what an agent and ecs-init, PID 1 of a task's container,
// say to each other over a unix stream socket. The agent listens at Socket in a
// directory of its own that is mounted read-only as Dir, and init dials.
//
// A frame is one byte of kind, the payload's length in four bytes, little-endian,
// and the payload. A reader refuses kinds it does not know and payloads longer
// than their kind allows.
//
// # A connection
//
//	init  -> agent  Hello    first frame of every connection, with the nonce
//	agent -> init   Resume   what the agent has for good; init sends the rest
//	agent -> init   Order    once in init's life, when Hello says it has none;
//	                         a second one is ignored
//	init  -> agent  Started  the program was executed; or
//	                Failed   it never was, and never will be
//	init  -> agent  Stdout, Stderr   every byte, in order
//	agent -> init   Ack      what the agent has for good by now
//	init  -> agent  Exit     after every other process of the container is
//	                         gone, and after the last byte of output
//	agent -> init   Done     the agent has the Exit (or Failed); init ends
//
// When a connection breaks, init holds everything and dials again until its
// lease is over. What it sent but has no Ack for it sends again, and Started,
// Failed and Exit on every new connection too, so that an agent that lost its
// memory learns them; an agent ignores what it knows.
//
// # Output
//
// Offsets count every byte of a stream from 0 without gaps. Init holds the last
// Ring bytes that no Ack covers and reads no more from the program when they
// are full, so an agent acknowledges at least every AckEvery bytes; what is less
// it need not, and init has it until the end. With a terminal all output is Stdout.
//
// # Input
//
// Stdin carries offsets too. The agent never has more than Window bytes beyond
// the offset of the last StdinTaken (or Hello) on their way, so a program that
// does not read never holds up the frames behind. StdinTaken moves on as the
// program reads, or, once it has closed its end, as init drops the bytes.
//
// # Times
//
// Deadlines are absolute on CLOCK_BOOTTIME, which all processes of a machine
// share; a duration would age on its way.
package initwire

import "time"

const (
	// Version is in Hello. An agent that does not know it answers nothing, and init ends
	// the container with its lease.
	Version = 1

	// ReservedID is the user and group id of PID 1. No task may ask for it.
	ReservedID = 2147483000

	// Dir is where the agent's directory is mounted in the container.
	Dir = "/.ecs"
	// Binary and Socket are the names in it. Binary has mode 0711. Socket is
	// there, with mode 0666, while the agent waits for a connection.
	Binary = "init"
	Socket = "s"
	// Path is PID 1's argv[0], and all of its command line.
	Path = Dir + "/" + Binary

	// NonceEnv is the variable of PID 1's environment whose value Hello repeats.
	NonceEnv = "ECS_INIT_NONCE"

	// MaxOutput is how many bytes one Stdout, Stderr or Stdin frame carries.
	MaxOutput = 64 << 10
	// MaxPayload is how long any other payload may be.
	MaxPayload = 1 << 20

	// Ring is how much of each stream init holds without an Ack.
	Ring = 256 << 10
	// AckEvery is how many bytes an agent may leave without an Ack.
	AckEvery = 64 << 10
	// Window is how many bytes of input may be on their way to the program.
	Window = 64 << 10

	// NoLease is how long init lives without ever a lease.
	NoLease = time.Minute
)

// Kind says what a frame carries.
type Kind byte

// What init sends. Zero is never a kind.
const (
	KindHello Kind = iota + 1
	KindStdout
	KindStderr
	KindStarted
	KindFailed
	KindExit
	KindStdinTaken
)

// What an agent sends.
const (
	KindResume Kind = iota + 64
	KindOrder
	KindLease
	KindAck
	KindStdin
	KindStdinClose
	KindResize
	KindSignal
	KindKill
	KindDone
)

// MaxPayload is how long the payload of a kind may be; -1 for what is no kind.
func (k Kind) MaxPayload() int {
	switch {
	case k == KindStdout, k == KindStderr, k == KindStdin:
		return 8 + MaxOutput
	case k >= KindHello && k <= KindStdinTaken, k >= KindResume && k <= KindDone:
		return MaxPayload
	}
	return -1
}
