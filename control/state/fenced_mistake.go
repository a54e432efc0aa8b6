//go:build ecs_mistake_token

package state

// tokensChecked is false here on purpose: the checks must notice.
const tokensChecked = false
