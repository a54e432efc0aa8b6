package access

import "testing"

func TestARoleIncludesThoseBeforeIt(t *testing.T) {
	for i, a := range Roles() {
		for j, b := range Roles() {
			if got := a.May(b); got != (i >= j) {
				t.Errorf("%s may %s: got %v", a, b, got)
			}
		}
		if a.May("") || Role("").May(a) || Role("root").May(a) || a.May("root") {
			t.Errorf("%s: a role that is none counts", a)
		}
	}
}

func TestOwnLimitsComeBeforeDefaults(t *testing.T) {
	got := Limits{Rate: 7, Quota: NoLimit}.Over(Limits{Rate: 1, Concurrency: 2, Quota: 3})
	if want := (Limits{Rate: 7, Concurrency: 2, Quota: NoLimit}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
