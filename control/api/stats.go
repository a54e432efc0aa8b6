package api

import (
	"net/http"
	"strconv"
	"time"

	"github.com/armon/go-metrics"

	"ecs/internal/task"
)

// The handler's metrics, all in one place:
//
//	http.requests     counter   requests by route, method and status
//	http.duration_ms  sample    how long they took, by route
//	tasks.answered    counter   finished tasks answered to a waiting caller, by outcome
//	tasks.overhead_ms sample    total less the program's own run, of those
//
// None is labelled by task, key or anything else a caller chooses.
type stats struct{ sink *metrics.Metrics }

func (s stats) request(x *exchange, method string, took time.Duration) {
	if s.sink == nil {
		return
	}
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodDelete:
	default:
		method = "other"
	}
	route := metrics.Label{Name: "route", Value: x.route}
	s.sink.IncrCounterWithLabels([]string{"http", "requests"}, 1, []metrics.Label{route,
		{Name: "method", Value: method}, {Name: "status", Value: strconv.Itoa(x.status)}})
	s.sink.AddSampleWithLabels([]string{"http", "duration_ms"}, millis(took), []metrics.Label{route})
}

func (s stats) answered(outcome task.Outcome, overhead time.Duration) {
	if s.sink == nil {
		return
	}
	s.sink.IncrCounterWithLabels([]string{"tasks", "answered"}, 1, []metrics.Label{{Name: "outcome", Value: string(outcome)}})
	s.sink.AddSample([]string{"tasks", "overhead_ms"}, millis(overhead))
}

func millis(d time.Duration) float32 { return float32(d) / float32(time.Millisecond) }
