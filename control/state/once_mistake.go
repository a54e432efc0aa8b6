//go:build ecs_mistake_once

package state

// keepsAtMostOnce is false here on purpose: the checks must notice.
const keepsAtMostOnce = false
