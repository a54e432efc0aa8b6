// Package tracing exports OpenTelemetry spans of requests and of tasks' lives
// over OTLP. Only control nodes use it; agents carry the trace context and time
// their part in the bill of time.
//
// Spans of a task are made once it has ended, from its record: one place makes
// them, no process in between has to keep a span open, and a task costs nothing
// more while it runs. They are as exact as the bill: the parts are timed by the
// clocks of the nodes they happened on and laid end to end on the leader's.
package tracing

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Config says who exports and where to. The standard OTEL_ variables say the
// rest: headers, certificates, sampling, batching, resource attributes.
type Config struct {
	Endpoint                     string // URL; empty: OTEL_EXPORTER_OTLP_ENDPOINT's
	Service, Node, Zone, Release string
}

// Wanted reports whether traces are to be exported. An error says that what the
// environment asks for can't be had.
func Wanted(endpoint string, env func(string) string) (bool, error) {
	if strings.EqualFold(env("OTEL_SDK_DISABLED"), "true") || env("OTEL_TRACES_EXPORTER") == "none" {
		return false, nil
	}
	if endpoint == "" && env("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "" {
		return false, nil
	}
	if endpoint != "" && !strings.HasPrefix(endpoint, "http://") && !strings.HasPrefix(endpoint, "https://") {
		return false, fmt.Errorf("--otlp-endpoint %s: want a URL such as http://127.0.0.1:4318/v1/traces", endpoint)
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		if p := env(name); p != "" && p != "http/protobuf" {
			return false, fmt.Errorf("%s=%s: traces are sent as http/protobuf only", name, p)
		}
	}
	return true, nil
}

// Tracer exports spans. Its methods are safe for concurrent use and do nothing
// on nil.
type Tracer struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
}

// New makes a Tracer, whose goroutine sends spans in batches until Close. It
// connects when there is something to send; what can't be sent is dropped, with
// a bound on what waits.
func New(ctx context.Context, cfg Config) (*Tracer, error) {
	var options []otlptracehttp.Option
	if cfg.Endpoint != "" {
		options = append(options, otlptracehttp.WithEndpointURL(cfg.Endpoint))
	}
	exporter, err := otlptracehttp.New(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("export traces: %w", err)
	}
	return with(ctx, cfg, sdktrace.WithBatcher(exporter))
}

func with(ctx context.Context, cfg Config, export sdktrace.TracerProviderOption) (*Tracer, error) {
	described, err := resource.New(ctx, resource.WithAttributes(
		attribute.String("service.name", cfg.Service), attribute.String("service.version", cfg.Release),
		attribute.String("service.instance.id", cfg.Node), attribute.String("cloud.availability_zone", cfg.Zone),
	), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("describe this node to the collector of traces: %w", err)
	}
	provider := sdktrace.NewTracerProvider(export, sdktrace.WithResource(described))
	return &Tracer{provider: provider, tracer: provider.Tracer("ecs")}, nil
}

// FromEnv is New where it is Wanted, else nil.
func FromEnv(ctx context.Context, cfg Config) (*Tracer, error) {
	wanted, err := Wanted(cfg.Endpoint, os.Getenv)
	if err != nil || !wanted {
		return nil, err
	}
	return New(ctx, cfg)
}

// Close sends what waits, as long as ctx lasts, and ends the goroutine.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	if err := t.provider.Shutdown(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("send the last traces: %w", err)
	}
	return nil
}

// Request begins the span of an HTTP request, under the caller's trace context
// where there is one. It gives the traceparent of the span, what adds a part of
// it that is over, and what ends it.
func (t *Tracer) Request(h http.Header, at time.Time) (parent string, part func(name string, from, to time.Time), end func(name, cid string, status int)) {
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.HeaderCarrier(h))
	ctx, span := t.tracer.Start(ctx, "request", trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(at))
	part = func(name string, from, to time.Time) {
		_, s := t.tracer.Start(ctx, name, trace.WithTimestamp(from))
		s.End(trace.WithTimestamp(to))
	}
	end = func(name, cid string, status int) {
		span.SetName(name)
		span.SetAttributes(attribute.Int("http.response.status_code", status), attribute.String("ecs.cid", cid))
		if status >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, http.StatusText(status))
		}
		span.End()
	}
	return parentOf(ctx), part, end
}

func parentOf(ctx context.Context) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier["traceparent"]
}
