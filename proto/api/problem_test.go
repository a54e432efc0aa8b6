package api

import "testing"

func TestAFaultIsSaidOnce(t *testing.T) {
	for want, p := range map[string]*Problem{
		"T: state must be good (cid c)": {Title: "T", Detail: "state must be good", CID: "c",
			Errors: []Fault{{Parameter: "state", Detail: "must be good"}}},
		"T: the body is wrong; /image is missing; /count is missing": {Title: "T", Detail: "the body is wrong",
			Errors: []Fault{{Pointer: "/image", Detail: "is missing"}, {Pointer: "/count", Detail: "is missing"}}},
		"HTTP status 502": {Status: 502},
	} {
		if got := p.Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
