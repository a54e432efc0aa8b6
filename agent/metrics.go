package agent

import "github.com/armon/go-metrics"

// The metrics of this package, all under "agent".
const (
	metricRunning        = "attempts_running"   // gauge: attempts that have not ended
	metricRemoving       = "removals_pending"   // gauge: ended attempts whose container is still there
	metricEnded          = "attempts_ended"     // counter, by outcome; "abandoned" when not reported
	metricLapsed         = "leases_lapsed"      // counter: attempts ended because contact was lost
	metricKillFailures   = "kill_failures"      // counter: calls of the engine that could not confirm an end
	metricRemoveFailures = "remove_failures"    // counter: removals that are tried again
	metricSwept          = "containers_swept"   // counter: containers found that no attempt claimed
	metricSessions       = "sessions"           // counter: sessions that a leader welcomed
	metricRegistrations  = "registrations"      // counter: of them, those with a new epoch
	metricContactAge     = "contact_age_ms"     // gauge: age of the last contact with the leader
	metricUnfit          = "unfit"              // gauge: 1 while the engine can run nothing
	metricUnreported     = "results_unreported" // gauge: results that the leader has not acknowledged
)

func count(m *metrics.Metrics, name string, n int) {
	m.IncrCounter([]string{"agent", name}, float32(n))
}

func gauge[N int | int64 | float64](m *metrics.Metrics, name string, value N) {
	m.SetGauge([]string{"agent", name}, float32(value))
}
