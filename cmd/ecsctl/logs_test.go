package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"ecs/proto/api"
)

func TestLogsShowsLinesAndWhoWasSilent(t *testing.T) {
	asked := ""
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.RequestURI()
		json.NewEncoder(w).Encode(api.LogList{CID: "c", Asked: 3, Truncated: true, Silent: []api.SilentNode{{Node: "a1", Role: "agent", Detail: "gone\x1b[2J"}},
			Lines: []json.RawMessage{[]byte(`{"time":"2026-01-02T03:04:05.678901Z","level":"WARN","msg":"it\u001b[2Jfailed","node":"n1","cid":"c","task":"t1","attempt":2}`)}})
	}))
	defer s.Close()
	i := invoke(nil, "ECS_ENDPOINT="+s.URL)
	if status := i.main([]string{"logs", "--cid", "c", "--limit", "5"}); status != 0 {
		t.Fatalf("got status %d: %s", status, i.err)
	}
	if want := "03:04:05.678901  WARN   n1  it\\x1b[2Jfailed  attempt=2  task=t1\n"; i.out.String() != want || asked != "/v2/logs?cid=c&limit=5" {
		t.Errorf("got %q from %s, want %q", i.out, asked, want)
	}
	if got := i.err.String(); !strings.Contains(got, "agent a1 did not answer: gone\\x1b[2J") || !strings.Contains(got, "--limit") {
		t.Errorf("got %q, want the silent agent and that lines are left out", got)
	}
	if status := i.main([]string{"logs"}); status != exitUsage {
		t.Errorf("without --cid: got status %d, want %d", status, exitUsage)
	}
}
