package taskwire

import (
	"time"

	"ecs/internal/task"
	ecsv1 "ecs/proto/ecs/v1"
)

// FromAttempt gives the message of one attempt.
func FromAttempt(a task.Attempt) *ecsv1.Attempt {
	return &ecsv1.Attempt{
		Number:    int32(a.Number),
		Node:      string(a.Node),
		Zone:      a.Zone,
		Epoch:     a.Epoch,
		Outcome:   string(a.Outcome),
		Reason:    a.Reason,
		PlacedAt:  FromTime(a.PlacedAt),
		StartedAt: FromTime(a.StartedAt),
		EndedAt:   FromTime(a.EndedAt),
		ExitCode:  int32(a.ExitCode),
		HasExit:   a.HasExit,
		RetryAt:   FromTime(a.RetryAt),
	}
}

// ToAttempt gives the attempt of a message.
func ToAttempt(m *ecsv1.Attempt) task.Attempt {
	return task.Attempt{
		Number:    int(m.GetNumber()),
		Node:      task.NodeID(m.GetNode()),
		Zone:      m.GetZone(),
		Epoch:     m.GetEpoch(),
		Outcome:   task.Outcome(m.GetOutcome()),
		Reason:    m.GetReason(),
		PlacedAt:  ToTime(m.GetPlacedAt()),
		StartedAt: ToTime(m.GetStartedAt()),
		EndedAt:   ToTime(m.GetEndedAt()),
		ExitCode:  int(m.GetExitCode()),
		HasExit:   m.GetHasExit(),
		RetryAt:   ToTime(m.GetRetryAt()),
	}
}

// FromResult gives the message of a result.
func FromResult(r *task.Result) *ecsv1.Result {
	if r == nil {
		return nil
	}
	return &ecsv1.Result{
		Outcome:     string(r.Outcome),
		ExitCode:    int32(r.ExitCode),
		HasExit:     r.HasExit,
		Signal:      r.Signal,
		Reason:      r.Reason,
		ImageDigest: r.ImageDigest,
		Stdout:      FromStream(r.Stdout),
		Stderr:      FromStream(r.Stderr),
		Node:        string(r.Node),
		OutputAddr:  r.OutputAddr,
		OutputNode:  string(r.OutputNode),
		Attempt:     int32(r.Attempt),
		Outputs:     fromOutputs(r.Outputs),
	}
}

// ToResult gives the result of a message.
func ToResult(m *ecsv1.Result) *task.Result {
	if m == nil {
		return nil
	}
	return &task.Result{
		Outcome:     task.Outcome(m.GetOutcome()),
		ExitCode:    int(m.GetExitCode()),
		HasExit:     m.GetHasExit(),
		Signal:      m.GetSignal(),
		Reason:      m.GetReason(),
		ImageDigest: m.GetImageDigest(),
		Stdout:      ToStream(m.GetStdout()),
		Stderr:      ToStream(m.GetStderr()),
		Node:        task.NodeID(m.GetNode()),
		OutputAddr:  m.GetOutputAddr(),
		OutputNode:  task.NodeID(m.GetOutputNode()),
		Attempt:     int(m.GetAttempt()),
		Outputs:     toOutputs(m.GetOutputs()),
	}
}

func fromOutputs(o *task.Outputs) *ecsv1.Outputs {
	if o == nil {
		return nil
	}
	return &ecsv1.Outputs{Bytes: o.Bytes, Sha256: fromHash(o.SHA256), Entries: int64(o.Entries), Truncated: o.Truncated,
		Missing: each(o.Missing, func(i int) uint32 { return uint32(i) }), Lost: o.Lost}
}

func toOutputs(m *ecsv1.Outputs) *task.Outputs {
	if m == nil {
		return nil
	}
	return &task.Outputs{Bytes: m.GetBytes(), SHA256: toHash(m.GetSha256()), Entries: int(m.GetEntries()), Truncated: m.GetTruncated(),
		Missing: each(m.GetMissing(), func(i uint32) int { return int(i) }), Lost: m.GetLost()}
}

// fromHash gives a hash's bytes, none for one that was never made.
func fromHash(hash [32]byte) []byte {
	if hash == [32]byte{} {
		return nil
	}
	return hash[:]
}

// toHash is the inverse of fromHash. A hash of another length than 32 bytes is
// none.
func toHash(b []byte) (hash [32]byte) {
	if len(b) == len(hash) {
		hash = [32]byte(b)
	}
	return hash
}

// FromStream gives the message of an output stream.
func FromStream(s task.Stream) *ecsv1.Stream {
	return &ecsv1.Stream{Head: s.Head, Bytes: s.Bytes, Kept: s.Kept, Sha256: fromHash(s.SHA256), Truncated: s.Truncated}
}

// ToStream gives the output stream of a message. A hash of another length than
// 32 bytes is none.
func ToStream(m *ecsv1.Stream) task.Stream {
	return task.Stream{
		Head:      m.GetHead(),
		Bytes:     m.GetBytes(),
		Kept:      m.GetKept(),
		SHA256:    toHash(m.GetSha256()),
		Truncated: m.GetTruncated(),
	}
}

// FromBill gives the message of a bill.
func FromBill(b task.Bill) *ecsv1.Bill {
	return &ecsv1.Bill{
		Accepted:    int64(b.Accepted),
		Committed:   int64(b.Committed),
		Queued:      int64(b.Queued),
		Placed:      int64(b.Placed),
		Assigned:    int64(b.Assigned),
		Image:       int64(b.Image),
		Create:      int64(b.Create),
		Start:       int64(b.Start),
		Run:         int64(b.Run),
		Output:      int64(b.Output),
		Reported:    int64(b.Reported),
		LeaderTotal: int64(b.LeaderTotal),
		Warm:        b.Warm,
	}
}

// ToBill gives the bill of a message.
func ToBill(m *ecsv1.Bill) task.Bill {
	return task.Bill{
		Accepted:    time.Duration(m.GetAccepted()),
		Committed:   time.Duration(m.GetCommitted()),
		Queued:      time.Duration(m.GetQueued()),
		Placed:      time.Duration(m.GetPlaced()),
		Assigned:    time.Duration(m.GetAssigned()),
		Image:       time.Duration(m.GetImage()),
		Create:      time.Duration(m.GetCreate()),
		Start:       time.Duration(m.GetStart()),
		Run:         time.Duration(m.GetRun()),
		Output:      time.Duration(m.GetOutput()),
		Reported:    time.Duration(m.GetReported()),
		LeaderTotal: time.Duration(m.GetLeaderTotal()),
		Warm:        m.GetWarm(),
	}
}
