package docker

import (
	"time"

	"github.com/armon/go-metrics"
)

// The metrics of this package:
//
//	docker_call_ms      sample   how long the engine took; label call
//	docker_call_errors  counter  engine calls that failed; label call
//	docker_leaked       counter  containers that could not be removed
var (
	metricCall   = []string{"docker", "call_ms"}
	metricErrors = []string{"docker", "call_errors"}
	metricLeaked = []string{"docker", "leaked"}
)

func (r *Runtime) measure(call string, begun time.Time, err error) {
	labels := []metrics.Label{{Name: "call", Value: call}}
	r.cfg.Metrics.MeasureSinceWithLabels(metricCall, begun, labels)
	if err != nil {
		r.cfg.Metrics.IncrCounterWithLabels(metricErrors, 1, labels)
	}
}
