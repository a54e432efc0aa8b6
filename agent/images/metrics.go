package images

import "time"

// The metrics of this package:
//
//	images_check_ms      sample   a registry was asked whether a caller may have an image
//	images_check_errors  counter  of those, refused or not answered
//	images_pull_ms       sample   the engine pulled an image
//	images_pull_errors   counter  of those, failed
//	images_stale         counter  a registry could not be reached and its last word was used
const (
	metricCheck = "check"
	metricPull  = "pull"
)

var metricStale = []string{"images", "stale"}

func (i *Images) measure(what string, began time.Time, err error) {
	i.cfg.Metrics.MeasureSince([]string{"images", what + "_ms"}, began)
	if err != nil {
		i.cfg.Metrics.IncrCounter([]string{"images", what + "_errors"}, 1)
	}
}
