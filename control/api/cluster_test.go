package api

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"ecs/control/state"
	"ecs/internal/task"
	"ecs/proto/api"
)

func TestNodesAreFoundByIDOrName(t *testing.T) {
	w := newWorld(t)
	w.apply(state.Register{Node: task.Node{ID: "a2", Name: "twin", Zone: "b"}})
	w.apply(state.Register{Node: task.Node{ID: "a3", Name: "twin", Zone: "c"}})
	for path, id := range map[string]string{"/v2/nodes/a1": "a1", "/v2/nodes/agent-1": "a1", "/v2/nodes/a2": "a2"} {
		if got := decodeAs[api.Node](t, w.do(http.MethodGet, path, "")); got.ID != id {
			t.Errorf("%s: got %+v, want %s", path, got, id)
		}
	}
	w.problem(w.do(http.MethodGet, "/v2/nodes/twin", ""), http.StatusBadRequest, api.CodeBadRequest)
	w.problem(w.do(http.MethodPost, "/v2/nodes/none/drain", ""), http.StatusNotFound, api.CodeNotFound)
	for _, drain := range []bool{true, false} {
		verb := map[bool]string{true: "drain", false: "undrain"}[drain]
		got := decodeAs[api.Node](t, w.do(http.MethodPost, "/v2/nodes/a1/"+verb, ""))
		if got.Drain != drain || w.Snapshot().Node("a1").Drain != drain {
			t.Errorf("%s: got %+v", verb, got)
		}
	}
	w.start(w.submitted(hello))
	list := decodeAs[api.NodeList](t, w.do(http.MethodGet, "/v2/nodes", ""))
	if len(list.Nodes) != 3 || list.Nodes[0].Reserved.CPU != 250 || list.Nodes[0].Free.CPU != 63750 || list.Nodes[0].Attempts != 1 || list.Nodes[0].Reserved.Memory != 256<<20 {
		t.Errorf("got %+v, want three nodes and what the first has reserved", list.Nodes)
	}
}

func TestMembersHaveTheirNames(t *testing.T) {
	w := newWorld(t)
	w.info.Members = []Member{{ID: "c1", Name: "control-1", Role: "control", Zone: "a"}, {ID: "a1", Role: "agent", Zone: "a"}, {ID: "a9", Role: "agent", Zone: "b"}}
	var names []string
	for _, m := range decodeAs[api.Cluster](t, w.do(http.MethodGet, "/v2/cluster", "")).Members {
		names = append(names, m.Name)
	}
	if want := []string{"control-1", "agent-1", ""}; !slices.Equal(names, want) {
		t.Errorf("got %q, want %q: an agent's name is in the record once it has registered", names, want)
	}
}

func TestOldServiceRoutesKeepTheirShape(t *testing.T) {
	w := newWorld(t)
	for _, version := range []string{"/v1.0", "/v1.1"} {
		href := func(route string) string { return `"links":{"self":{"href":"` + w.url + version + route + `"}}` }
		for route, want := range map[string]string{
			"/_version":            `{"version":"1.2.3",` + href("/_version") + "}\n",
			"/_noop":               `{` + href("/_noop") + "}\n",
			"/_health":             `{"status":"green","details":{},` + href("/_health") + "}\n",
			"/_health?quick=true":  `{"status":"green","details":{},` + href("/_health") + "}\n",
			"/_health?quick=false": `{"status":"green","details":{"docker remote api":{"status":"green","details":{"agent a1":"Docker 20.10","api version":"green","connectivity":"green"}},"raft":{"status":"green","details":{"detail":"leader c1"}}},` + href("/_health") + "}\n",
		} {
			a := w.do(http.MethodGet, version+route, "")
			if a.status != http.StatusOK || string(a.body) != want || !strings.HasPrefix(a.header.Get("Content-Type"), "application/json") {
				t.Errorf("%s: got %d %s, want %s", route, a.status, a.body, want)
			}
		}
		for _, quick := range []string{"maybe", "", "1", "TRUE", "yes"} {
			w.problem(w.do(http.MethodGet, version+"/_health?quick="+quick, ""), http.StatusBadRequest, api.CodeBadRequest)
		}
	}
}

func TestHealthIsRedWhenNothingCanRun(t *testing.T) {
	red := func(w *world, why string) {
		t.Helper()
		for _, quick := range []string{"true", "false"} {
			a := w.do(http.MethodGet, "/v1.1/_health?quick="+quick, "")
			if got := decodeAs[api.HealthV1](t, a); a.status != http.StatusServiceUnavailable || got.Status != "red" {
				t.Errorf("%s: got %d %s, want red", why, a.status, a.body)
			}
		}
	}
	w := newWorld(t)
	w.health.Ready = false
	red(w, "not ready")
	w = newWorld(t)
	unfit := "the engine hangs"
	w.apply(state.SetNode{Node: "a1", Unfit: &unfit, Epoch: w.Snapshot().Node("a1").Epoch})
	red(w, "no engine answers")
	w = newWorld(t)
	w.do(http.MethodPost, "/v2/nodes/a1/drain", "")
	red(w, "all agents drain")
	if a := w.do(http.MethodGet, "/v1.1/_health?quick=false", ""); decodeAs[api.HealthV1](t, a).Details["docker remote api"].Status != "green" {
		t.Errorf("got %s, want the engines green: they answer", a.body)
	}
	w = newWorld(t)
	w.health.Checks = append(w.health.Checks, Check{Name: "gossip", Detail: "alone"})
	if a := w.do(http.MethodGet, "/v1.1/_health?quick=false", ""); a.status != http.StatusOK || decodeAs[api.HealthV1](t, a).Details["gossip"].Status != "red" {
		t.Errorf("got %d %s, want gossip red and the service green", a.status, a.body)
	}
}

func TestLoadBalancerSeesWhetherTheNodeCanAnswer(t *testing.T) {
	w := newWorld(t)
	s := httptest.NewServer(NewHealth(w))
	defer s.Close()
	get := func(path string) int {
		resp, err := http.Get(s.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	for _, ready := range []bool{true, false} {
		w.health = Health{Ready: ready, Reasons: []string{"the node is draining"}}
		want := map[bool]int{true: 200, false: 503}[ready]
		for _, path := range []string{"/_only_for_lb_health_check", "/readyz"} {
			if got := get(path); got != want {
				t.Errorf("%s: got %d while ready is %v, want %d", path, got, ready, want)
			}
		}
		if got := get("/livez"); got != 200 {
			t.Errorf("/livez: got %d, want 200", got)
		}
	}
	for _, path := range []string{"/", "/v2/tasks", "/metrics"} {
		if got := get(path); got != http.StatusNotFound {
			t.Errorf("%s: got %d on the load balancer's port, want 404", path, got)
		}
	}
}

func TestMetricsAndDocsAreServed(t *testing.T) {
	w := newWorld(t)
	if a := w.do(http.MethodGet, "/metrics", ""); string(a.body) != "ecs_up 1\n" {
		t.Errorf("got %q", a.body)
	}
	page := string(w.do(http.MethodGet, "/docs", "").body)
	if !strings.Contains(page, "/openapi.yaml") {
		t.Error("/docs does not link the description")
	}
	for _, c := range api.Codes() {
		if !strings.Contains(page, `<dt id="`+string(c.Code)+`">`) {
			t.Errorf("/docs does not explain %s", c.Code)
		}
	}
}

func TestBillExplainsTheWholeTime(t *testing.T) {
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	tk := &task.Task{Attempts: []task.Attempt{{}}, Bill: task.Bill{Accepted: ms(1), Queued: ms(7), Placed: ms(3), Assigned: ms(1), Image: ms(2),
		Create: ms(8), Start: ms(100), Run: ms(50), Output: ms(20), Reported: ms(1), LeaderTotal: ms(200)}}
	sum := func(t api.Times) float64 {
		total := 0.0
		for _, part := range []*float64{t.Accepted, t.Committed, t.Queued, t.Placed, t.Assigned, t.Image, t.Create, t.Start, t.Run, t.Output, t.Reported, t.Recorded, t.Transfer, t.Answered} {
			if part != nil {
				total += *part
			}
		}
		return total
	}
	later, overhead := bill(tk, nil)
	if *later.Total != 201 || sum(later) != 201 || overhead != ms(151) || later.Committed != nil || later.Answered != nil || later.Recorded != nil {
		t.Errorf("got %+v and overhead %v, want 201 ms in all and nothing that this node can't know", later, overhead)
	}
	start := time.Now()
	own, overhead := bill(tk, &answering{start: start, committed: ms(5), seen: start.Add(ms(210)), now: start.Add(ms(214))})
	if *own.Total != 214 || sum(own) != 214 || *own.Queued != 2 || *own.Committed != 5 || *own.Answered != 4 || overhead != ms(164) {
		t.Errorf("got %+v and overhead %v, want 214 ms in all with the commit taken out of the queue", own, overhead)
	}
	tk.Bill.Queued, tk.Bill.Placed, tk.Bill.LeaderTotal = 0, ms(4), ms(194) // placed as it was accepted
	own, _ = bill(tk, &answering{start: start, committed: ms(5), seen: start.Add(ms(200)), now: start.Add(ms(201))})
	if *own.Total != 201 || sum(own) != 201 || *own.Placed != 0 || *own.Committed != 5 {
		t.Errorf("got %+v, want one commit counted once", own)
	}
	tk.Bill.LeaderTotal = ms(10) // the clocks disagree
	if odd, overhead := bill(tk, nil); *odd.Transfer != 0 || overhead < 0 {
		t.Errorf("got transfer %v and overhead %v, want neither negative", *odd.Transfer, overhead)
	}
	tk.Attempts = nil
	if never, _ := bill(tk, nil); never.Run != nil || never.Placed != nil || never.Accepted == nil {
		t.Errorf("got %+v, want only what happened to a task that never ran", never)
	}
}

func TestTheGossipKeyIsRotatedOnceAtATimeByAdmins(t *testing.T) {
	w := newWorld(t)
	w.problem(w.do(http.MethodPost, "/v2/cluster/gossip-key", "", "Authorization", basic(olga, "o-secret")), http.StatusForbidden, api.CodeForbidden)
	a := w.do(http.MethodPost, "/v2/cluster/gossip-key", "")
	if k := decodeAs[api.GossipKey](t, a); a.status != http.StatusAccepted || k.Step != api.RotationAdd || k.Next != "bb" || k.StartedBy != root {
		t.Errorf("got %d %s", a.status, a.body)
	}
	w.problem(w.do(http.MethodPost, "/v2/cluster/gossip-key", ""), http.StatusConflict, api.CodeRotation)
	w.problem(w.do(http.MethodPost, "/v2/cluster/gossip-key?now=1", ""), http.StatusBadRequest, api.CodeBadRequest)
	c := decodeAs[api.Cluster](t, w.do(http.MethodGet, "/v2/cluster", ""))
	if k := c.GossipKey; len(k.Waiting) != 1 || !k.Waiting[0].Gone || k.Waiting[0].Name != "one" || len(k.Skipped) != 1 {
		t.Errorf("got %+v", k)
	}
}
