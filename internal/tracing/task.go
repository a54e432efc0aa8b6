package tracing

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"ecs/internal/task"
)

// Task exports the spans of a finished task's life, unless the request that made
// it was of no trace. recorded is when its end was in the record.
//
//	task
//	  accepted queued placed          by the control nodes
//	  attempt 1 ...                   each that there was
//	    assigned image create start run output reported   of the last
//	  recorded                        its result, committed
func (t *Tracer) Task(done *task.Task, recorded time.Time) {
	if t == nil || done.Trace == "" || done.Result == nil {
		return
	}
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": done.Trace})
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return
	}
	b := done.Bill
	ctx, span := t.tracer.Start(ctx, "task", trace.WithTimestamp(done.SubmittedAt.Add(-b.Accepted)), trace.WithAttributes(taskAttributes(done)...))
	line := timeline{t: t, ctx: ctx, at: done.SubmittedAt.Add(-b.Accepted)}
	line.next("accepted", b.Accepted)
	line.next("queued", b.Queued)
	if len(done.Attempts) > 0 {
		line.next("placed", b.Placed)
	}
	for i := range done.Attempts {
		t.attempt(ctx, done, i)
	}
	if recorded.Before(done.FinishedAt) {
		recorded = done.FinishedAt // another leader's clock stamped it
	}
	line.at = done.FinishedAt
	line.next("recorded", recorded.Sub(done.FinishedAt))
	fail(span, done.Result.Outcome, done.Result.Reason)
	span.End(trace.WithTimestamp(recorded))
}

func (t *Tracer) attempt(ctx context.Context, done *task.Task, i int) {
	a := &done.Attempts[i]
	ctx, span := t.tracer.Start(ctx, fmt.Sprintf("attempt %d", a.Number), trace.WithTimestamp(a.PlacedAt), trace.WithAttributes(
		attribute.Int("ecs.attempt", a.Number), attribute.String("ecs.node", string(a.Node)), attribute.String("ecs.zone", a.Zone),
		attribute.String("ecs.outcome", string(a.Outcome))))
	if i == len(done.Attempts)-1 {
		b := done.Bill
		line := timeline{t: t, ctx: ctx, at: a.PlacedAt}
		for _, part := range []struct {
			name string
			took time.Duration
		}{{"assigned", b.Assigned}, {"image", b.Image}, {"create", b.Create}, {"start", b.Start}, {"run", b.Run}, {"output", b.Output}, {"reported", b.Reported}} {
			line.next(part.name, part.took)
		}
	}
	fail(span, a.Outcome, a.Reason)
	ended := a.EndedAt
	if ended.Before(a.PlacedAt) {
		ended = done.FinishedAt
	}
	span.End(trace.WithTimestamp(ended))
}

// timeline lays spans end to end.
type timeline struct {
	t   *Tracer
	ctx context.Context
	at  time.Time
}

// next adds a part, if it took any time.
func (l *timeline) next(name string, took time.Duration) {
	if took <= 0 {
		return
	}
	_, s := l.t.tracer.Start(l.ctx, name, trace.WithTimestamp(l.at))
	l.at = l.at.Add(took)
	s.End(trace.WithTimestamp(l.at))
}

func taskAttributes(t *task.Task) []attribute.KeyValue {
	attrs := []attribute.KeyValue{attribute.String("ecs.task", string(t.ID)), attribute.String("ecs.cid", t.CID),
		attribute.String("ecs.owner", t.Owner), attribute.String("ecs.image", t.Spec.Image),
		attribute.String("ecs.image_digest", t.Result.ImageDigest), attribute.String("ecs.outcome", string(t.Result.Outcome))}
	if t.Result.HasExit {
		attrs = append(attrs, attribute.Int("ecs.exit_code", t.Result.ExitCode))
	}
	if t.Bill.Warm != "" {
		attrs = append(attrs, attribute.String("ecs.warm", t.Bill.Warm))
	}
	return attrs
}

// fail marks a span whose work did not come to its own end.
func fail(span trace.Span, o task.Outcome, reason string) {
	if o != task.Exited && o != "" {
		span.SetStatus(codes.Error, string(o)+": "+reason)
	}
}
