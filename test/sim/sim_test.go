package sim

import "testing"

// A placement's cost grows with the logarithm of the nodes: this counts
// comparisons, so that a busy machine proves as much as an idle one.
func TestPlacementGrowsWithTheLogarithmOfTheNodes(t *testing.T) {
	steps := func(nodes int) float64 {
		r, err := Run(nodes, 2000)
		if err != nil {
			t.Fatal(err)
		}
		if r.Placed != 2000 {
			t.Fatalf("%d nodes: got %d placements, want 2000", nodes, r.Placed)
		}
		return float64(r.Steps) / float64(r.Placed)
	}
	small, large := steps(100), steps(10_000)
	t.Logf("steps a placement: %.1f on 100 nodes, %.1f on 10,000", small, large)
	// 33 nodes a zone are 6 levels, 3,333 are 12.
	if large > 3*small {
		t.Errorf("got %.1f steps on 10,000 nodes, want at most three times the %.1f on 100", large, small)
	}
}
