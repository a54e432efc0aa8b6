package agent

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
)

// handingOn runs f beside the handover of an agent whose spool holds something.
func handingOn(t *testing.T, f func(t *testing.T, a *Agent, ended <-chan struct{})) {
	synctest.Test(t, func(t *testing.T) {
		s := spoolIn(t, t.TempDir())
		finished(t, s, takeOf("t1", "", nil), bytesOf(100_000, 1))
		a := &Agent{cfg: Config{Spool: s, Log: slog.New(slog.DiscardHandler)}, handover: newHandover()}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan struct{})
		go func() { defer close(ended); a.handOver(ctx, DefaultHandOver) }()
		synctest.Wait()
		f(t, a, ended)
		cancel()
		<-ended
	})
}

func TestHandoverLastsUntilTheLeaderSaysSo(t *testing.T) {
	handingOn(t, func(t *testing.T, a *Agent, ended <-chan struct{}) {
		time.Sleep(handOverSilence - time.Second)
		a.handover.hear(&ecsv1.HandedOn{Total: 2, Bytes: 200})
		time.Sleep(handOverSilence) // longer than it would wait for the first word
		if isClosed(ended) {
			t.Fatal("got an end while the leader is at it")
		}
		a.handover.hear(&ecsv1.HandedOn{Total: 2, Moved: 1, Lost: 1, Bytes: 200, MovedBytes: 100, Over: true})
		synctest.Wait()
		if now := a.handover.status(); !isClosed(ended) || !now.Over || now.Moved != 1 || now.Lost != 1 {
			t.Errorf("got ended %t, %+v; want it over", isClosed(ended), now)
		}
	})
}

// Another leader begins anew, and its end counts.
func TestHandoverGoesOnWithAnotherLeader(t *testing.T) {
	handingOn(t, func(t *testing.T, a *Agent, ended <-chan struct{}) {
		a.handover.hear(&ecsv1.HandedOn{Total: 5, Moved: 3})
		a.handover.hear(&ecsv1.HandedOn{Total: 2})
		if now := a.handover.status(); now.Total != 2 || now.Moved != 0 || now.Within != DefaultHandOver {
			t.Errorf("got %+v, want the second leader's count", now)
		}
		a.handover.hear(&ecsv1.HandedOn{Total: 2, Moved: 2, Over: true})
		a.handover.hear(&ecsv1.HandedOn{Total: 2, Moved: 2, Over: true}) // says it twice
		synctest.Wait()
		if !isClosed(ended) {
			t.Error("got no end, want it with the leader's word")
		}
	})
}

func TestHandoverIsBounded(t *testing.T) {
	for name, tc := range map[string]struct {
		heard bool
		want  time.Duration
	}{"a leader that knows nothing of it": {false, handOverSilence}, "a leader that goes on and on": {true, DefaultHandOver}} {
		t.Run(name, func(t *testing.T) {
			handingOn(t, func(t *testing.T, a *Agent, ended <-chan struct{}) {
				began := time.Now()
				if tc.heard {
					a.handover.hear(&ecsv1.HandedOn{Total: 1})
				}
				<-ended
				if took := time.Since(began); took != tc.want {
					t.Errorf("got an end after %s, want %s", took, tc.want)
				}
			})
		})
	}
}

// Nobody reads what was not granted to it, and a read may come ahead of the grant.
func TestOnlyWhoTakesAnOutputMayReadIt(t *testing.T) {
	handingOn(t, func(t *testing.T, a *Agent, _ <-chan struct{}) {
		m := takeOf("t1", "", nil)
		tok := taskwire.ToToken(m.GetToken())
		early := make(chan error, 1)
		go func() { early <- a.MayRead(t.Context(), "taker", tok) }()
		time.Sleep(grantPatience - time.Second)
		a.handover.grant(&ecsv1.Grant{Token: m.GetToken(), Node: "taker"})
		if err := <-early; err != nil {
			t.Errorf("ahead of the grant: got %v, want it allowed", err)
		}
		began := time.Now()
		other := tok
		other.Attempt++
		for _, who := range []struct {
			node string
			tok  task.Token
		}{{"stranger", tok}, {"taker", other}} {
			if err := a.MayRead(t.Context(), who.node, who.tok); !errors.Is(err, errNotGranted) {
				t.Errorf("%s, attempt %d: got %v, want it refused", who.node, who.tok.Attempt, err)
			}
		}
		if took := time.Since(began); took != 2*grantPatience {
			t.Errorf("got refusals after %s, want %s", took, 2*grantPatience)
		}
		// Ordered of another as well: both may.
		a.handover.grant(&ecsv1.Grant{Token: m.GetToken(), Node: "second"})
		for _, node := range []string{"second", "taker"} {
			if err := a.MayRead(t.Context(), node, tok); err != nil {
				t.Errorf("%s: got %v, want it allowed", node, err)
			}
		}
	})
}

func TestAnAgentThatStaysGrantsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &Agent{handover: newHandover()}
		tok := task.Token{Task: "t1", Attempt: 1, Epoch: 1}
		a.handover.grant(&ecsv1.Grant{Token: taskwire.FromToken(tok), Node: "taker"})
		began := time.Now()
		if err := a.MayRead(t.Context(), "taker", tok); !errors.Is(err, errNotGranted) || time.Since(began) != 0 {
			t.Errorf("got %v after %s, want it refused at once", err, time.Since(began))
		}
	})
}

func TestAnEmptySpoolIsNotHandedOn(t *testing.T) {
	a := &Agent{cfg: Config{Spool: spoolIn(t, t.TempDir()), Log: slog.New(slog.DiscardHandler)}, handover: newHandover()}
	a.handOver(t.Context(), DefaultHandOver)
	if isClosed(a.handover.asked) {
		t.Error("got the leader asked for nothing")
	}
}
