//go:build !ecs_mistake_margin

package task

import "time"

// LeaseMargin is what the leader waits beyond a lease before it may place the
// next attempt. It covers the time an engine takes to end a program.
const LeaseMargin = 2 * time.Second
