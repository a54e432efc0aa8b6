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
		Attempt:     int32(r.Attempt),
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
		Attempt:     int(m.GetAttempt()),
	}
}

// FromStream gives the message of an output stream.
func FromStream(s task.Stream) *ecsv1.Stream {
	m := &ecsv1.Stream{Head: s.Head, Bytes: s.Bytes, Kept: s.Kept, Truncated: s.Truncated}
	if s.SHA256 != [32]byte{} {
		m.Sha256 = s.SHA256[:]
	}
	return m
}

// ToStream gives the output stream of a message. A hash of another length than
// 32 bytes is none.
func ToStream(m *ecsv1.Stream) task.Stream {
	s := task.Stream{
		Head:      m.GetHead(),
		Bytes:     m.GetBytes(),
		Kept:      m.GetKept(),
		Truncated: m.GetTruncated(),
	}
	if hash := m.GetSha256(); len(hash) == len(s.SHA256) {
		s.SHA256 = [32]byte(hash)
	}
	return s
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
	}
}
