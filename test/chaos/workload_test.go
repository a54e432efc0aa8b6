package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"

	"ecs/proto/api"
	"ecs/test/chaos/check"
)

func TestOnlyWhatPromisesItIsTakenForNotDone(t *testing.T) {
	problem := func(code api.Code) error { return fmt.Errorf("submit: %w", &api.Problem{Code: code}) }
	for _, tt := range []struct {
		kind string
		err  error
		want string
	}{
		{check.Submit, nil, check.OK},
		{check.Submit, problem(api.CodeKeyConflict), check.Conflict},
		{check.Submit, problem(api.CodeQueueFull), check.Failed},
		{check.Submit, problem(api.CodeNoLeader), check.Failed},
		{check.Submit, &net.OpError{Op: "dial", Err: errors.New("refused")}, check.Failed},
		{check.Submit, &net.OpError{Op: "read", Err: errors.New("reset")}, check.Unknown},
		{check.Submit, context.DeadlineExceeded, check.Unknown},
		{check.Submit, problem(api.CodeUnknown), check.Unknown},
		{check.Submit, problem(api.CodeInternal), check.Unknown},
		{check.Submit, problem(api.CodeBusy), check.Unknown},
		{check.Submit, problem(api.CodeNotFound), check.Unknown},
		{check.Submit, problem("of a later release"), check.Unknown},
		{check.Get, problem(api.CodeNotFound), check.OK},
		{check.Cancel, problem(api.CodeNotFound), check.OK},
	} {
		if got := resultOf(tt.kind, tt.err); got != tt.want {
			t.Errorf("%s, %v: got %s, want %s", tt.kind, tt.err, got, tt.want)
		}
	}
}
