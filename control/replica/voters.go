package replica

import (
	"cmp"
	"slices"
)

const (
	mostVoters = 5
	// leastVoters are kept whatever happens: nothing but an operator makes fewer.
	leastVoters = 3
)

// ballot is a voter as its leader knows it when it is about to give another vote.
type ballot struct {
	id      string
	answers bool // just now
	failed  bool // it has not answered for long
}

// inPlaceOf says whether one more node may have a vote, which may die at once, and
// which failed voter is to lose its own before that, "" for none.
//
// An odd number of voters needs as many to agree as one fewer, an even number as many
// as one more: so taking a failed one's vote first and giving the other one then never
// raises that number, and costs nothing that its failure had not. The other way round
// three voters, one of them dead, need all of three, and a newcomer that dies with its
// vote takes the majority along.
func inPlaceOf(voters []ballot) (failed string, ok bool) {
	n, answer := len(voters), 0
	for _, v := range voters {
		if v.answers {
			answer++
		}
		if v.failed && len(voters)%2 == 1 {
			failed = v.id
		}
	}
	if failed != "" {
		n--
	}
	needed := (n+1)/2 + 1
	return failed, n == 1 || answer >= needed
}

// server is a control node as the choice of voters sees it.
type server struct {
	id, zone string
	voter    bool
	leader   bool
	healthy  bool // it answers, is nearly caught up, and stays
	stable   bool // it has been for a while
}

// chooseVoters names at most one change that brings the voters closer to 3 or 5
// in distinct zones: who is to get a vote, or who is to lose it.
//
// The number of voters is even only on the way. Nobody gets a vote who is not
// caught up and stable, and none is given when what is there does not suffice for
// the next odd number, or to replace one who failed; see inPlaceOf for how that loses
// its vote. Otherwise somebody loses it only when there is one voter too many: who
// failed first. No one who could vote looks on while a voter has failed.
func chooseVoters(servers []server) (promote, demote string) {
	var able []server // to vote
	voters, good := 0, 0
	for _, s := range servers {
		if s.voter {
			voters++
			if s.healthy {
				good++
			}
		}
		if s.healthy && (s.voter || s.stable) {
			able = append(able, s)
		}
	}
	target := min(mostVoters, len(able)-1+len(able)%2)
	if voters%2 == 1 && good < voters {
		target = min(len(able), max(target, good+1))
	}
	wanted := spread(able, target)
	grow := good < target || voters%2 == 1
	for _, s := range wanted {
		if !s.voter && grow && voters <= mostVoters {
			return s.id, ""
		}
	}
	if voters%2 == 1 || voters <= leastVoters {
		return "", ""
	}
	return "", surplus(servers, wanted)
}

// surplus is the voter that is wanted least: one that failed, else one that is
// not among the wanted. It is never the leader.
func surplus(servers, wanted []server) string {
	isWanted := func(s server) bool {
		return slices.ContainsFunc(wanted, func(w server) bool { return w.id == s.id })
	}
	for _, s := range servers {
		if s.voter && !s.healthy && !s.leader {
			return s.id
		}
	}
	for _, s := range servers {
		if s.voter && !s.leader && !isWanted(s) {
			return s.id
		}
	}
	return ""
}

// spread chooses n servers over as many zones as there are: the leader, then
// always one of a zone that has the fewest so far, a voter rather than another.
func spread(able []server, n int) []server {
	left := slices.Clone(able)
	var chosen []server
	zones := make(map[string]int)
	for len(chosen) < n {
		best := slices.MinFunc(left, func(a, b server) int {
			return cmp.Or(first(a.leader, b.leader), cmp.Compare(zones[a.zone], zones[b.zone]),
				first(a.voter, b.voter), cmp.Compare(a.id, b.id))
		})
		left = slices.DeleteFunc(left, func(s server) bool { return s.id == best.id })
		chosen = append(chosen, best)
		zones[best.zone]++
	}
	return chosen
}

// first orders true before false.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}
