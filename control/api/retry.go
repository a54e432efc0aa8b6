package api

import (
	"slices"
	"time"

	"ecs/internal/task"
)

const maxExitCode = 255

// retry reads how often, and when, attempts are repeated. The delivery promise
// has been read before it.
func retry(o *fields, s *task.Spec) {
	s.InfrastructureRetries = task.DefaultRetries
	n := o.object("retry")
	if n == nil {
		return
	}
	if count, ok := n.count("infrastructure", 0, task.MaxRetries); ok {
		s.InfrastructureRetries = int(count)
	}
	count, _ := n.count("program", 0, task.MaxRetries)
	s.ProgramRetries = int(count)
	s.RetryExitCodes = exitCodes(n)
	s.RetryBackoff = n.duration("backoff", time.Millisecond, task.MaxBackoff)
	once := s.Delivery == task.AtMostOnce || s.Delivery == "" && s.OpenStdin
	switch {
	case s.ProgramRetries > 0 && once:
		n.faults.add(n.at("program"), "", `must be 0 for a task that runs at most once (ask for "delivery":"at_least_once", or leave it out)`)
	case s.ProgramRetries == 0:
		for _, name := range []string{"on_exit_codes", "backoff"} {
			if _, there := find(n.members, name); there {
				n.faults.add(n.at(name), "", "has no effect without retries of the program: say how many in program")
			}
		}
	}
	n.done()
}

// exitCodes takes the codes of failures that are worth another try, in order and
// each once.
func exitCodes(n *fields) []int {
	v := n.of("on_exit_codes", array)
	if v == nil {
		return nil
	}
	if len(v.items) == 0 || len(v.items) > task.MaxExitCodes {
		n.faults.add(v.pointer, "", "must be 1 to %d exit codes; leave it out for every code but 0", task.MaxExitCodes)
		return nil
	}
	codes := make([]int, 0, len(v.items))
	for _, item := range v.items {
		code, err := parseCount(item.text)
		if item.kind != number || err != nil || code < 1 || code > maxExitCode {
			n.faults.add(item.pointer, "", "must be an exit code between 1 and %d", maxExitCode)
			continue
		}
		codes = append(codes, int(code))
	}
	slices.Sort(codes)
	return slices.Compact(codes)
}
