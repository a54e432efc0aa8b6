package main

import (
	"testing"

	"google.golang.org/grpc"

	ecsv1 "ecs/proto/ecs/v1"
	"ecs/test/chaos/check"
)

// answered is a stream of which every answer is the one that is passed in.
type answered struct{ grpc.ClientStream }

func (answered) RecvMsg(any) error { return nil }

// What is said again is of an earlier registration, and of attempts that had no
// end in it.
func TestOnlyEndsOfEarlierRegistrationsAreSaidAgain(t *testing.T) {
	g := &gossipmonger{}
	g.option()
	hello := func(epoch uint64) *ecsv1.AgentMessage {
		return &ecsv1.AgentMessage{Kind: &ecsv1.AgentMessage_Hello{Hello: &ecsv1.Hello{Epoch: epoch}}}
	}
	beat := &ecsv1.AgentMessage{Kind: &ecsv1.AgentMessage_Heartbeat{Heartbeat: &ecsv1.Heartbeat{}}}
	status := func(task string) *ecsv1.AgentMessage {
		return &ecsv1.AgentMessage{Kind: &ecsv1.AgentMessage_Status{Status: &ecsv1.AttemptStatus{Token: &ecsv1.Token{Task: task, Attempt: 1, Epoch: 7}}}}
	}
	for _, m := range []*ecsv1.AgentMessage{hello(0), status("t1"), status("t2"), status("t3"), beat, hello(7), beat} {
		if more := g.after(m); len(more) > 0 {
			t.Errorf("got %v after %v of the first registration", more, m)
		}
	}
	ended := &ecsv1.StatusAnswer{Token: status("t2").GetStatus().GetToken(), Final: true}
	if err := (&overheard{answered{}, g}).RecvMsg(&ecsv1.ControlMessage{Kind: &ecsv1.ControlMessage_Status{Status: ended}}); err != nil {
		t.Fatal(err)
	}
	again := hello(0)
	again.GetHello().Running = []*ecsv1.Token{status("t3").GetStatus().GetToken()}
	g.after(again)
	var said []*ecsv1.AgentMessage
	for range 2 * staleTimes {
		said = append(said, g.after(beat)...)
	}
	if len(said) != staleTimes {
		t.Fatalf("got %d messages, want %d", len(said), staleTimes)
	}
	for _, m := range said {
		if s := m.GetStatus(); s.GetToken().GetTask() != "t1" || s.GetResult().GetExitCode() != check.StaleExit {
			t.Errorf("got %v, want the end of t1", m)
		}
	}
}
