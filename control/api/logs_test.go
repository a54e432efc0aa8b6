package api

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"ecs/proto/api"
)

func TestLogsAreSearchedForTheCallerAloneUnlessItOperates(t *testing.T) {
	w := newWorld(t)
	w.logs = LogsFound{Lines: [][]byte{[]byte(`{"time":"2026-01-02T03:04:05.6Z","level":"INFO","msg":"m","cid":"c-1","node":"n","attempt":2}`)},
		Cut: true, Asked: 4, Silent: []Silent{{Node: "a9", Role: "agent", Detail: "no route"}}}
	a := w.do(http.MethodGet, "/v2/logs?cid=c-1&limit=7", "")
	list := decodeAs[api.LogList](t, a)
	if len(list.Lines) != 1 || !strings.Contains(string(list.Lines[0]), `"attempt":2`) || !list.Truncated || list.Asked != 4 ||
		len(list.Silent) != 1 || list.Silent[0] != (api.SilentNode{Node: "a9", Role: "agent", Detail: "no route"}) {
		t.Errorf("got %s", a.body)
	}
	if want := (LogSearch{CID: "c-1", Owner: alice, Lines: 7}); w.search != want {
		t.Errorf("got search %+v, want %+v", w.search, want)
	}
	w.logs = LogsFound{}
	if got := w.do(http.MethodGet, "/v2/logs?cid=c-2", "", "Authorization", basic(bob, "b-secret")); got.status != 200 || w.search.Owner != bob || w.search.Lines != api.DefaultLogLines {
		t.Errorf("got %d %s with search %+v, want an empty list for bob", got.status, got.body, w.search)
	}
	for _, operator := range []string{olga, root} {
		if got := w.do(http.MethodGet, "/v2/logs?cid=c-2", "", "Authorization", basic(operator, operator[:1]+"-secret")); got.status != 200 || w.search.Owner != "" {
			t.Errorf("got %d %s with search %+v, want everybody's lines for %s", got.status, got.body, w.search, operator)
		}
	}
	for _, bad := range []string{"", "?cid=", "?cid=a%22b", "?cid=c&limit=0", "?cid=c&limit=5001", "?cid=c&limit=x", "?cid=c&cid=d", "?cid=c&since=1h"} {
		w.problem(w.do(http.MethodGet, "/v2/logs"+bad, ""), http.StatusBadRequest, api.CodeBadRequest)
	}
}

// A gathering asks every node: one key has one at a time, and all of them a few.
func TestFewGatheringsOfLinesAtATime(t *testing.T) {
	w := newWorld(t)
	g := w.handler.gates
	var ends []func()
	for i := range maxGatherings {
		end, err := g.gather(fmt.Sprint("key", i), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, end)
	}
	w.problem(w.do(http.MethodGet, "/v2/logs?cid=c", ""), http.StatusServiceUnavailable, api.CodeBusy)
	ends[0]()
	if a := w.do(http.MethodGet, "/v2/logs?cid=c", ""); a.status != http.StatusOK {
		t.Errorf("got %d %s", a.status, a.body)
	}
	end, err := g.gather(alice, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	w.excess(w.do(http.MethodGet, "/v2/logs?cid=c", ""), api.CodeRateLimited, limitLogsConcurrency)
	end()
	for _, end := range ends[1:] {
		end()
	}
	if len(g.gatherings) != 0 {
		t.Errorf("%d gatherings never ended", len(g.gatherings))
	}
}
