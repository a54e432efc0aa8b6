//go:build !ecs_mistake_once

package state

// keepsAtMostOnce: what may have started is not repeated where that was
// promised. A build with the tag ecs_mistake_once repeats it.
const keepsAtMostOnce = true
