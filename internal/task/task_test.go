package task

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestNodesSayHowManyContainersTheyMayStartAhead(t *testing.T) {
	for text, want := range map[string]int{"0": 0, "7": 7, "-1": 0} {
		n := Node{Attributes: map[string]string{AttributeWarmSlots: text}}
		if slots, known := n.WarmSlots(); slots != want || !known {
			t.Errorf("%q: got %d, %v, want %d", text, slots, known, want)
		}
	}
	for _, n := range []Node{{}, {Attributes: map[string]string{AttributeWarmSlots: "many"}}} {
		if slots, known := n.WarmSlots(); slots != 0 || known {
			t.Errorf("%v: got %d, %v, want nothing known", n.Attributes, slots, known)
		}
	}
}

func TestStatesMoveForwardOrBackToTheQueue(t *testing.T) {
	may := map[State][]State{
		Pending:  {Assigned, Finished},
		Assigned: {Running, Finished, Pending},
		Running:  {Finished, Pending},
		Finished: nil,
	}
	for from, allowed := range may {
		for to := Pending; to <= Finished; to++ {
			want := false
			for _, a := range allowed {
				want = want || a == to
			}
			if got := from.CanFollow(to); got != want {
				t.Errorf("%s to %s: got %v, want %v", from, to, got, want)
			}
		}
		if back, ok := ParseState(from.String()); !ok || back != from {
			t.Errorf("%s read back: got %s", from, back)
		}
	}
	if _, ok := ParseState("unknown"); ok {
		t.Error("an unknown state was read")
	}
}

func TestDefaultsFollowTheContract(t *testing.T) {
	v1 := Spec{}.WithDefaults(V1, true)
	if v1.Network != NetworkEgress || v1.Resources.Memory != DefaultV1Memory || v1.Timeouts.Queue != DefaultQueueWaiting {
		t.Errorf("v1: got %+v", v1)
	}
	v2 := Spec{}.WithDefaults(V2, false)
	if v2.Network != NetworkNone || v2.Resources.Memory != DefaultMemory || v2.Timeouts.Queue != DefaultQueue || v2.Timeouts.Total != 0 || v2.Lease != DefaultLease {
		t.Errorf("v2: got %+v", v2)
	}
	if got := (Spec{Delivery: AtMostOnce}).WithDefaults(V2, false).Lease; got != AtMostOnceLease {
		t.Errorf("at most once: got a lease of %s, want %s", got, AtMostOnceLease)
	}
	if got := (Spec{Delivery: AtMostOnce, Lease: time.Minute}).WithDefaults(V2, false).Lease; got != time.Minute {
		t.Errorf("got a lease of %s, want the caller's", got)
	}
	if got := (Spec{Resources: Resources{MilliCPU: 3000}}).WithDefaults(V2, false).Resources.MilliCPULimit; got != 3000 {
		t.Errorf("got a ceiling of %d, want no less than what is reserved", got)
	}
}

func TestLiveIsTheAttemptThatMayHoldAContainer(t *testing.T) {
	attempts := []Attempt{{Number: 1, Outcome: NodeLost}, {Number: 2}}
	for state, want := range map[State]int{Pending: 0, Assigned: 2, Running: 2, Finished: 0} {
		got := 0
		if live := (&Task{State: state, Attempts: attempts}).Live(); live != nil {
			got = live.Number
		}
		if got != want {
			t.Errorf("%s: got attempt %d, want %d", state, got, want)
		}
	}
}

func TestErrorsAreMatchedByCode(t *testing.T) {
	err := fmt.Errorf("submit: %w", &Error{Code: CodeStale, Message: "old", Faults: []Fault{{Pointer: "/a", Detail: "is wrong"}}})
	if !errors.Is(err, &Error{Code: CodeStale}) || errors.Is(err, &Error{Code: CodeNotFound}) {
		t.Error("an error must match its own code and no other")
	}
	if got, want := err.Error(), "submit: old: /a is wrong"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
