package telemetry

import (
	"net/http"

	"github.com/armon/go-metrics"
	metricsprom "github.com/armon/go-metrics/prometheus"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// NewMetrics makes the metrics of a process, every name prefixed by service,
// and the handler that shows them to Prometheus together with those of the Go
// runtime and the process. It also becomes go-metrics' global instance, because
// raft and memberlist emit there: call it once, from a main.
func NewMetrics(service string) (*metrics.Metrics, http.Handler) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	// Without an expiration: an idle counter must not vanish between scrapes.
	sink, err := metricsprom.NewPrometheusSinkFrom(metricsprom.PrometheusOpts{
		Registerer: registry, Name: service + "_sink"})
	if err != nil {
		panic(err) // only a name registered twice, and the registry is new
	}
	m, err := metrics.NewGlobal(quiet(service), sink)
	if err != nil {
		panic(err) // it has no failing path
	}
	return m, promhttp.HandlerFor(registry, promhttp.HandlerOpts{Registry: registry})
}

// Discard takes metrics and keeps none. It starts no goroutine.
func Discard() *metrics.Metrics {
	m, err := metrics.New(quiet("discard"), &metrics.BlackholeSink{})
	if err != nil {
		panic(err) // it has no failing path
	}
	return m
}

// quiet is go-metrics' configuration without host names in metric names, and
// without its goroutine that polls the runtime for ever.
func quiet(service string) *metrics.Config {
	c := metrics.DefaultConfig(service)
	c.EnableHostname = false
	c.EnableRuntimeMetrics = false
	return c
}
