//go:build ecs_mistake_key

package state

// keysCheckedHere is false on purpose: the simulation must notice.
const keysCheckedHere = false
