//go:build ecs_mistake_margin

package task

import "time"

// LeaseMargin is zero here on purpose: the simulation must notice.
const LeaseMargin = 0 * time.Second
