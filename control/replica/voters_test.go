package replica

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// parse reads servers from words like "L1a": L the leader, v a voter, n none;
// its name; its zone; then ! when it failed, ~ when it is not stable yet.
func parse(text string) (servers []server) {
	for _, w := range strings.Fields(text) {
		servers = append(servers, server{id: w[1:2], zone: w[2:3], leader: w[0] == 'L', voter: w[0] != 'n',
			healthy: !strings.Contains(w, "!"), stable: !strings.ContainsAny(w, "!~")})
	}
	return servers
}

func TestChoiceOfVoters(t *testing.T) {
	for _, tt := range []struct{ name, servers, promote, demote string }{
		{"one alone", "L1a", "", ""},
		{"the second waits for a third", "L1a n2b", "", ""},
		{"with the third the second is promoted", "L1a n2b n3c", "2", ""},
		{"then the third", "L1a v2b n3c", "3", ""},
		{"not before it is stable", "L1a v2b n3c~", "", ""},
		{"three are left alone", "L1a v2b v3c", "", ""},
		{"the fourth waits for a fifth", "L1a v2b v3c n4a", "", ""},
		{"with the fifth both come", "L1a v2b v3c n4a n5b", "4", ""},
		{"and the other", "L1a v2b v3c v4a n5b", "5", ""},
		{"never more than five", "L1a v2b v3c v4a v5b n6c n7a", "", ""},
		{"a failed one stays while nobody takes its place", "L1a v2b v3c!", "", ""},
		{"and four of five", "L1a v2b v3c v4a v5b!", "", ""},
		{"its replacement first", "L1a v2b v3c! n4c", "4", ""},
		{"then the failed one goes", "L1a v2b v3c! v4c", "", "3"},
		{"the same of five", "L1a v2b v3c v4a v5b! n6b", "6", ""},
		{"then the failed one of six", "L1a v2b v3c v4a v5b! v6b", "", "5"},
		{"two failed of five, two come: one at a time", "L1a v2b v3c v4a! v5b! n6b n7a", "6", ""},
		{"two failed of five, one comes", "L1a v2b v3c v4a! v5b! n6b", "6", ""},
		{"for one of them", "L1a v2b v3c v4a! v5b! v6b", "", "4"},
		{"the other stays", "L1a v2b v3c v5b! v6b n4a!", "", ""},
		{"until the next comes", "L1a v2b v3c v5b! v6b n4a", "4", ""},
		{"one failed of four: it goes, the next waits for a fifth", "L1a v2b v3c v4a! n5b", "", "4"},
		{"a failed one that has no vote is nobody's replacement", "L1a v2b v3c! n4c!", "", ""},
		{"after a leave of one of five, one more goes, of the fullest zone", "L1a v2a v3b v4c", "", "2"},
		{"never the leader", "L1a v2b v3b v4c", "", "3"},
		{"after a leave of one of three, two stay", "L1a v2b", "", ""},
		{"a better zone takes over, in two steps", "L1a v2a v3b n4c", "4", ""},
		{"the second of them", "L1a v2a v3b v4c", "", "2"},
		{"no swap for the same spread", "L1a v2b v3c n4c", "", ""},
		{"a majority of failed ones changes nothing", "L1a v2b! v3c!", "", ""},
	} {
		promote, demote := chooseVoters(parse(tt.servers))
		if promote != tt.promote || demote != tt.demote {
			t.Errorf("%s: got %q in and %q out, want %q and %q", tt.name, promote, demote, tt.promote, tt.demote)
		}
	}
}

// From any start the choice comes to rest, at 3 or 5 healthy voters wherever
// there are so many nodes, and on the way never gives up the majority.
func TestChoiceOfVotersComesToRest(t *testing.T) {
	for seed := range uint64(3000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		servers := []server{{id: "0", zone: "a", voter: true, leader: true, healthy: true, stable: true}}
		for i := 1; i < 1+rng.IntN(8); i++ {
			healthy := rng.IntN(4) > 0
			servers = append(servers, server{id: fmt.Sprint(i), zone: string(rune('a' + rng.IntN(3))), voter: rng.IntN(2) == 0, healthy: healthy, stable: healthy})
		}
		count := func() (voters, good, able int) {
			for _, s := range servers {
				if s.healthy {
					able++
				}
				if s.voter {
					voters++
					if s.healthy {
						good++
					}
				}
			}
			return voters, good, able
		}
		if voters, good, _ := count(); 2*good <= voters || voters > 6 {
			continue // nobody leads, or no choice of ours came to that
		}
		steps := 0
		for ; steps < 30; steps++ {
			promote, demote := chooseVoters(servers)
			if promote == "" && demote == "" {
				break
			}
			for i := range servers {
				if s := &servers[i]; s.id == promote || s.id == demote {
					s.voter = s.id == promote
				}
			}
			if voters, good, _ := count(); 2*good <= voters {
				t.Fatalf("seed %d: %d of %d voters are healthy after %q in, %q out", seed, good, voters, promote, demote)
			}
		}
		voters, good, able := count()
		if steps == 30 || able >= 3 && good < 3 || able >= 5 && voters != 5 && voters%2 == 0 {
			t.Errorf("seed %d: %d voters, %d healthy, of %d able after %d steps: %+v", seed, voters, good, able, steps, servers)
		}
		if good < voters && good < able {
			t.Errorf("seed %d: %d of %d voters have failed and %d others could vote: %+v", seed, voters-good, voters, able-good, servers)
		}
	}
}
