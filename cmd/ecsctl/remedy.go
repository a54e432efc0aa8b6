package main

import (
	"errors"
	"strings"
	"syscall"

	"ecs/proto/api"
)

// Where to look for the names of what there is.
const (
	listsTasks   = "`ecsctl tasks ls` lists them"
	listsNodes   = "`ecsctl nodes ls` lists them; control nodes are not among them"
	listsMembers = "`ecsctl cluster status` lists them, and `ecsctl nodes ls` agents that are lost too"
	listsKeys    = "`ecsctl keys ls` lists them"
	listsTokens  = "`ecsctl ca tokens` lists them"
)

// unknown is an error about something that is not there.
type unknown struct {
	error
	lists string // where to look for what is
}

func (u *unknown) Unwrap() error { return u.error }

// named makes an error that says a name means nothing tell where the names are. The
// answer itself does not: not only ecsctl reads it.
func named(err error, lists string) error {
	if errors.Is(err, &api.Problem{Code: api.CodeNotFound}) {
		return &unknown{err, lists}
	}
	return err
}

// remedy says what a person can do about an error: about each of those joined in it,
// and the same thing once.
func remedy(err error) string {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return remedyOfOne(err)
	}
	advice := ""
	for _, one := range joined.Unwrap() {
		if what := remedy(one); !strings.Contains(advice, what) {
			advice += what
		}
	}
	return advice
}

func remedyOfOne(err error) string {
	var nowhere *unknown
	switch {
	case errors.As(err, &nowhere):
		return "\n(" + nowhere.lists + ")"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "\n(is the cluster up? `ecsctl dev up` starts one on this machine; ECS_ENDPOINT or --endpoint names another)"
	case errors.Is(err, &api.Problem{Code: api.CodeUnauthorized}):
		return "\n(look at ECS_KEY and ECS_SECRET, or --api-key and --api-secret: `ecsctl dev status` prints those of a cluster on this machine, elsewhere an admin makes others with `ecsctl keys create`)"
	}
	return ""
}
