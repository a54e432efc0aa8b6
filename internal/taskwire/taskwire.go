// Package taskwire turns the words of package task into the bytes of
// proto/ecs/v1 and back.
//
// It is pure, as package task is. A From function gives the message for a
// value, a To function the value for a message; every field of the domain type
// is carried, save those that their comment calls derived. All of them take
// nil. Results share slices and maps with what they were made of, so neither
// side may be changed afterwards.
package taskwire

import (
	"crypto/sha256"
	"errors"
	"time"

	"ecs/internal/task"
	ecsv1 "ecs/proto/ecs/v1"
)

// FromTask gives the message of a whole record.
func FromTask(t *task.Task) *ecsv1.Task {
	if t == nil {
		return nil
	}
	return &ecsv1.Task{
		Id:          string(t.ID),
		Cid:         t.CID,
		Owner:       t.Owner,
		Key:         t.Key,
		BodyMac:     t.BodyMAC,
		Api:         string(t.API),
		Spec:        FromSpec(t.Spec),
		Seq:         t.Seq,
		State:       int32(t.State),
		StopAs:      string(t.StopAs),
		Attempts:    each(t.Attempts, FromAttempt),
		Result:      FromResult(t.Result),
		SubmittedAt: FromTime(t.SubmittedAt),
		FinishedAt:  FromTime(t.FinishedAt),
		Bill:        FromBill(t.Bill),
		BackingOff:  t.BackingOff,
		Trace:       t.Trace,
	}
}

// ToTask gives the record of a message.
func ToTask(m *ecsv1.Task) *task.Task {
	if m == nil {
		return nil
	}
	return &task.Task{
		ID:          task.ID(m.GetId()),
		CID:         m.GetCid(),
		Owner:       m.GetOwner(),
		Key:         m.GetKey(),
		BodyMAC:     m.GetBodyMac(),
		API:         task.API(m.GetApi()),
		Spec:        ToSpec(m.GetSpec()),
		Seq:         m.GetSeq(),
		State:       task.State(m.GetState()),
		StopAs:      task.Outcome(m.GetStopAs()),
		Attempts:    each(m.GetAttempts(), ToAttempt),
		Result:      ToResult(m.GetResult()),
		SubmittedAt: ToTime(m.GetSubmittedAt()),
		FinishedAt:  ToTime(m.GetFinishedAt()),
		Bill:        ToBill(m.GetBill()),
		BackingOff:  m.GetBackingOff(),
		Trace:       m.GetTrace(),
	}
}

// FromToken gives the message of an attempt's token.
func FromToken(t task.Token) *ecsv1.Token {
	return &ecsv1.Token{Task: string(t.Task), Attempt: int32(t.Attempt), Epoch: t.Epoch}
}

// ToToken gives the token of a message.
func ToToken(m *ecsv1.Token) task.Token {
	return task.Token{Task: task.ID(m.GetTask()), Attempt: int(m.GetAttempt()), Epoch: m.GetEpoch()}
}

// TakeProof is what an agent that was ordered to take an output knows of it, and that
// no other agent does: SHA-256 over what the order says is held.
func TakeProof(m *ecsv1.Take) []byte {
	sum := sha256.New()
	for _, h := range []*ecsv1.Held{m.GetStdout(), m.GetStderr(), m.GetOutputs()} {
		sum.Write(h.GetSha256())
	}
	return sum.Sum(nil)
}

// FromTokens gives the messages of several tokens.
func FromTokens(tokens []task.Token) []*ecsv1.Token { return each(tokens, FromToken) }

// ToTokens gives the tokens of several messages.
func ToTokens(messages []*ecsv1.Token) []task.Token { return each(messages, ToToken) }

// FromError gives the message of a refusal; nil is no refusal. Faults are
// folded into the text: they are found before a request is forwarded.
func FromError(e *task.Error) *ecsv1.Refusal {
	if e == nil {
		return nil
	}
	return &ecsv1.Refusal{Code: string(e.Code), Message: e.Error()}
}

// ToError gives the refusal of a message, or nil. Where an error interface is
// wanted use ToErr: a nil *task.Error in one is not a nil error.
func ToError(m *ecsv1.Refusal) *task.Error {
	if m == nil {
		return nil
	}
	return &task.Error{Code: task.Code(m.GetCode()), Message: m.GetMessage()}
}

// RefusalOf gives the message of the *task.Error in err's chain, or nil.
func RefusalOf(err error) *ecsv1.Refusal {
	if refusal, ok := errors.AsType[*task.Error](err); ok {
		return FromError(refusal)
	}
	return nil
}

// ToErr is ToError as an error that is nil when there is no refusal.
func ToErr(m *ecsv1.Refusal) error {
	if m == nil {
		return nil
	}
	return ToError(m)
}

// FromTime gives nanoseconds since the Unix epoch, 0 for the zero time. Times
// outside the years 1678 to 2262 can't be carried.
func FromTime(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// ToTime is the inverse of FromTime, in UTC.
func ToTime(nanos int64) time.Time {
	if nanos == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanos).UTC()
}

// each converts a list; an empty one becomes nil, as it does on the wire.
func each[A, B any](in []A, convert func(A) B) []B {
	if len(in) == 0 {
		return nil
	}
	out := make([]B, len(in))
	for i, v := range in {
		out[i] = convert(v)
	}
	return out
}
