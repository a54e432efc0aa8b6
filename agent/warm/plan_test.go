package warm

import (
	"slices"
	"testing"
)

func TestPlan(t *testing.T) {
	for _, tt := range []struct {
		demands []float64
		slots   int
		want    []int
	}{
		{nil, 4, []int{}},
		{[]float64{1}, 0, []int{0}},
		{[]float64{0}, 4, []int{0}},
		{[]float64{0.06}, 4, []int{1}},
		{[]float64{1.9}, 4, []int{2}},
		{[]float64{30}, 4, []int{4}},
		{[]float64{1, 1, 1}, 2, []int{1, 1, 0}},
		{[]float64{30, 1}, 4, []int{4, 0}},
		{[]float64{30, 10}, 4, []int{3, 1}},
		{[]float64{2, 0.5, 3}, 8, []int{2, 1, 3}},
	} {
		if got := plan(tt.demands, tt.slots); !slices.Equal(got, tt.want) {
			t.Errorf("plan(%v, %d): got %v, want %v", tt.demands, tt.slots, got, tt.want)
		}
	}
}
