package docker

import (
	"fmt"
	"strconv"

	"github.com/docker/docker/api/types/filters"

	"ecs/internal/task"
)

// The labels of everything that is made here.
const (
	labelCluster = "ecs.cluster"
	labelNode    = "ecs.node"
	labelTask    = "ecs.task"
	labelAttempt = "ecs.attempt"
	labelEpoch   = "ecs.epoch"
	// labelParked is there on what was parked, for people and their filters.
	labelParked = "ecs.parked"
)

// containerName is the same whenever the same attempt is created, so that a
// create whose answer was lost is found again.
func containerName(t task.Token) string { return fmt.Sprintf("ecs-%s-%d", t.Task, t.Attempt) }

func (r *Runtime) labels(t task.Token) map[string]string {
	labels := map[string]string{
		labelCluster: r.cfg.Cluster,
		labelNode:    r.cfg.Node,
		labelTask:    string(t.Task),
		labelAttempt: strconv.Itoa(t.Attempt),
		labelEpoch:   strconv.FormatUint(t.Epoch, 10),
	}
	if isParking(t) {
		labels[labelParked] = "true"
	}
	return labels
}

// tokenOf reads an attempt's labels; ok is false when they make no token.
func tokenOf(labels map[string]string) (t task.Token, ok bool) {
	attempt, err := strconv.Atoi(labels[labelAttempt])
	if err != nil {
		return task.Token{}, false
	}
	epoch, err := strconv.ParseUint(labels[labelEpoch], 10, 64)
	if err != nil {
		return task.Token{}, false
	}
	return task.Token{Task: task.ID(labels[labelTask]), Attempt: attempt, Epoch: epoch}, labels[labelTask] != ""
}

// mine reports whether the labels are this agent's.
func (r *Runtime) mine(labels map[string]string) bool {
	return labels[labelCluster] == r.cfg.Cluster && labels[labelNode] == r.cfg.Node
}

// own filters a list for what carries this agent's labels.
func (r *Runtime) own() filters.Args {
	return filters.NewArgs(
		filters.Arg("label", labelCluster+"="+r.cfg.Cluster),
		filters.Arg("label", labelNode+"="+r.cfg.Node))
}

// ofCluster filters a list for what any agent of the cluster made.
func ofCluster(cluster string) filters.Args {
	return filters.NewArgs(filters.Arg("label", labelCluster+"="+cluster))
}
