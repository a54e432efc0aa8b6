package main

import (
	"bytes"
	"strconv"
	"testing"
	"time"

	"ecs/internal/initwire"
)

const manyLines = 470_000 // over 5 MB

func numbersOrder() initwire.Order { return order("prog", "numbers", strconv.Itoa(manyLines)) }

func checkNumbers(t *testing.T, stdout, stderr []byte) {
	t.Helper()
	wantOut, wantErr := expected(manyLines)
	if len(wantOut) < 5<<20 {
		t.Fatalf("only %d bytes", len(wantOut))
	}
	if !bytes.Equal(stdout, wantOut) {
		t.Errorf("stdout: got %d bytes, want %d, or they differ", len(stdout), len(wantOut))
	}
	if !bytes.Equal(stderr, wantErr) {
		t.Errorf("stderr: got %d bytes, want %d, or they differ", len(stderr), len(wantErr))
	}
}

// TestSlowAcks acknowledges only when init has nothing more to give.
func TestSlowAcks(t *testing.T) {
	c := start(t)
	s := c.accept(initwire.Position{})
	s.ack = false
	s.send(numbersOrder())
	var acked initwire.Position
	for s.exit == nil {
		s.step()
		held := initwire.Position{Stdout: s.have.Stdout - acked.Stdout, Stderr: s.have.Stderr - acked.Stderr}
		if held.Stdout > initwire.Ring || held.Stderr > initwire.Ring {
			t.Fatalf("init sent %+v without an Ack", held)
		}
		if held.Stdout == initwire.Ring || held.Stderr == initwire.Ring || s.have.Stdout > 5<<20 {
			acked = s.have
			s.send(initwire.Ack(acked))
		}
	}
	checkNumbers(t, s.stdout.Bytes(), s.stderr.Bytes())
	c.done(s)
}

// TestNoAckHoldsTheProgram never acknowledges: the program waits, and nothing grows.
func TestNoAckHoldsTheProgram(t *testing.T) {
	c := start(t)
	s := c.accept(initwire.Position{})
	s.ack = false
	o := order("prog", "bytes", strconv.Itoa(100<<20))
	o.RunLimit = 3 * time.Second
	s.send(o)
	s.until(func() bool { return s.have.Stdout == initwire.Ring })
	// Its output can't be delivered, so Exit has to wait for Acks as well.
	s.ack = true
	s.send(initwire.Ack(s.have))
	s.finish()
	if s.exit.Stdout != s.have.Stdout {
		t.Errorf("got %d bytes and %+v", s.have.Stdout, s.exit)
	}
	c.done(s)
}

// TestReconnecting cuts the connection again and again in the middle of output.
// An agent knows for good only what it acknowledged, and often less has got
// through; nothing is lost and nothing comes twice.
func TestReconnecting(t *testing.T) {
	c := start(t)
	var stdout, stderr []byte
	var at initwire.Position
	for cuts := 0; ; cuts++ {
		s := c.accept(at)
		if cuts == 0 {
			s.send(numbersOrder())
		} else if !s.hello.Ordered || s.hello.Stdout > at.Stdout || s.hello.Stderr > at.Stderr {
			t.Fatalf("got hello %+v for an agent at %+v", s.hello, at)
		}
		goal := s.have.Stdout + int64(cuts*70_000) + 1
		s.until(func() bool { return s.have.Stdout > goal || s.exit != nil })
		// The last frame's bytes are lost with this agent's memory, unless they
		// were acknowledged, which they were: so forget none.
		stdout, stderr, at = append(stdout, s.stdout.Bytes()...), append(stderr, s.stderr.Bytes()...), s.have
		if s.exit != nil {
			if cuts < 5 {
				t.Errorf("only %d cuts", cuts)
			}
			c.done(s)
			break
		}
		c.cut(s)
		c.listen()
	}
	checkNumbers(t, stdout, stderr)
}

// TestForgetfulAgent resumes below what it was sent but had not acknowledged.
func TestForgetfulAgent(t *testing.T) {
	c := start(t)
	s := c.accept(initwire.Position{})
	s.ack = false
	s.send(shell("seq 1 5000; echo err >&2"))
	s.finish()
	whole := s.stdout.String()
	c.cut(s)
	c.listen()
	s = c.accept(initwire.Position{Stdout: 1234})
	if !s.hello.Ended || !s.hello.Started || s.hello.Stdout != 0 {
		t.Errorf("got hello %+v", s.hello)
	}
	s.finish()
	if s.started == nil || s.stdout.String() != whole[1234:] || s.stderr.String() != "err\n" {
		t.Errorf("got %d bytes of stdout, want %d; started %v", s.stdout.Len(), len(whole)-1234, s.started)
	}
	c.done(s)
}

// TestExitIsHeld ends the program while no agent is there.
func TestExitIsHeld(t *testing.T) {
	c := start(t)
	s := c.accept(initwire.Position{})
	s.send(shell("echo begun; sleep 0.1; echo; exit 9"))
	s.until(func() bool { return s.started != nil })
	c.cut(s)
	waitFor(t, "the program ends", func() bool { return len(processes(t, c)) == 1 })
	c.listen()
	s = c.accept(initwire.Position{})
	if s.finish(); s.exit.Code != 9 || s.stdout.String() != "begun\n\n" {
		t.Errorf("got %+v and %q", s.exit, s.stdout.String())
	}
	c.done(s)
}

func TestGarbageOnlyEndsTheConnection(t *testing.T) {
	c := start(t)
	s := c.accept(initwire.Position{})
	o := shell("read x; echo got $x")
	o.Stdin = initwire.StdinStream
	s.send(o)
	s.until(func() bool { return s.started != nil })
	if _, err := s.conn.Write([]byte("\xff\xff\xff\xff\xff\xff")); err != nil {
		t.Fatal(err)
	}
	s = c.accept(initwire.Position{})
	if err := s.w.Data(initwire.KindStdin, s.hello.Stdin, []byte("line\n"), nil); err != nil {
		t.Fatal(err)
	}
	if s.finish(); s.stdout.String() != "got line\n" {
		t.Errorf("got %q", s.stdout.String())
	}
	c.done(s)
}

// TestSize measures PID 1 while it waits, and after much output.
func TestSize(t *testing.T) {
	const limit, amount = 4 << 10, 100 << 20
	c := start(t)
	s := c.accept(initwire.Position{})
	idle := statusOf(t, c.cmd.Process.Pid, "VmRSS")
	s.send(shell("prog bytes " + strconv.Itoa(amount) + "; read x"))
	begun := boottime()
	for s.have.Stdout < amount {
		s.step()
		s.stdout.Reset()
	}
	took := boottime() - begun
	busy := statusOf(t, c.cmd.Process.Pid, "VmHWM")
	threads := statusOf(t, c.cmd.Process.Pid, "Threads")
	t.Logf("resident %d KiB idle, at most %d KiB after %d MiB, which took %s; %d threads", idle, busy, amount>>20, took, threads)
	if idle > limit || busy > limit {
		t.Errorf("resident: got %d KiB idle and %d KiB busy, want at most %d", idle, busy, limit)
	}
	s.finish()
	c.done(s)
}
