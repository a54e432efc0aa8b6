package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"ecs/control/state"
	"ecs/internal/access"
	"ecs/internal/task"
	"ecs/internal/telemetry"
	"ecs/proto/api"
	ecsv1 "ecs/proto/ecs/v1"
)

// world is a node's HTTP port over a real record, with everything behind it
// played by the test.
type world struct {
	t       *testing.T
	url     string
	handler *Handler

	mu     sync.Mutex
	store  *state.Store
	index  uint64
	ids    int
	output map[string]*buffer // by task/stream
	syncs  int
	refuse error // of Submit
	unmade error // of PutKey and MakeToken
	health Health
	info   ClusterInfo

	explain  func(ctx context.Context) (string, int, error)
	behind   bool   // Sync fails
	starting bool   // Sync never succeeded
	catchUp  func() // what Sync brings, if it does not fail
	drained  map[task.NodeID]bool
	keys     keyboard
	logs     LogsFound
	room     Room
	search   LogSearch // the last one
}

const (
	alice = "alice"
	bob   = "bob"
	olga  = "olga"
	root  = "root"
)

// pairs are keys and secrets.
type pairs map[string]string

func (p pairs) Remembered(key, secret string) (access.Principal, bool) {
	return access.Principal{Owner: key, Role: roles[key]}, p[key] != "" && p[key] == secret
}

func (p pairs) Authenticate(_ context.Context, a Attempt) (access.Principal, error) {
	who, ok := p.Remembered(a.Key, a.Secret)
	if !ok {
		return access.Principal{}, ErrWrongSecret
	}
	return who, nil
}

func (p pairs) Holder(key string) (access.Principal, string, bool) {
	return access.Principal{Owner: key, Role: roles[key]}, p[key], p[key] != ""
}
func (p pairs) Counts(who access.Principal) bool { return p[who.Owner] != "" }

func (pairs) Changed() (<-chan struct{}, time.Duration) { return nil, 0 }

// roles are what the keys of pairs may do.
var roles = map[string]access.Role{alice: access.Run, bob: access.Run, olga: access.Operate, root: access.Admin}

// seals hides nothing, but binds.
type seals struct{}

func (seals) Seal(plain, bound []byte) ([]byte, error) {
	return fmt.Appendf(nil, "sealed for %s: %x", bound, plain), nil
}

func (seals) MAC(data []byte) []byte {
	sum := sha256.Sum256(append([]byte("key"), data...))
	return sum[:]
}

func newWorld(t *testing.T, changes ...func(*Config)) *world {
	t.Helper()
	return newWorldOn(t, func(*http.Server) {}, changes...)
}

// newWorldOn is newWorld with the server changed.
func newWorldOn(t *testing.T, server func(*http.Server), changes ...func(*Config)) *world {
	t.Helper()
	w := &world{t: t, store: state.NewStore(state.Limits{}), output: make(map[string]*buffer), drained: make(map[task.NodeID]bool),
		health: Health{Ready: true, Checks: []Check{{Name: "raft", OK: true, Detail: "leader c1"}}},
		info: ClusterInfo{Name: "test", Node: "c1", Version: "1.2.3", Leader: "c1", Term: 3,
			Voters: []Voter{{ID: "c1", Addr: "c1:7449", Voter: true}}, Members: []Member{{ID: "c1", Role: "control", Zone: "a", Version: "1.2.3", HTTPAddr: "c1:8448"}}}}
	w.explain = func(context.Context) (string, int, error) { return "0 of 1 nodes can take it", 2, nil }
	cfg := Config{Tasks: w, Reader: w, Explainer: w, Outputs: w, Inputs: &w.keys, Cluster: w, Images: w, Logs: w, Keys: w, Authority: w, Sealer: seals{},
		Auth:    pairs{alice: "a-secret", bob: "b-secret", olga: "o-secret", root: "r-secret"},
		Metrics: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { io.WriteString(rw, "ecs_up 1\n") }),
		Log:     slog.New(slog.NewTextHandler(t.Output(), nil)), NewID: w.newID, Version: "1.2.3", Stats: telemetry.Discard()}
	for _, change := range changes {
		change(&cfg)
	}
	s := httptest.NewUnstartedServer(nil)
	w.handler = New(cfg)
	s.Config = NewServer(w.handler)
	server(s.Config)
	s.Start()
	t.Cleanup(s.Close)
	w.url = s.URL
	w.apply(state.Register{Node: task.Node{ID: "a1", Name: "agent-1", Zone: "a", OutputAddr: "a1:1", Engine: "Docker 20.10", Version: "1.2.3",
		Capacity: task.Capacity{MilliCPU: 64000, Memory: 64 << 30}}})
	return w
}

// Images gives one image that agent a1 has, and those that are wished for.
func (w *world) Images(_ context.Context, node task.NodeID) (Images, error) {
	if node != "" && node != "a1" {
		return Images{}, nil
	}
	found := Images{Counts: []ImageCount{{Image: "busybox:1", Nodes: 1, Parked: 2}}}
	for wish := range w.Snapshot().Wishes() {
		if image := wish.Spec.Image; image != "busybox:1" {
			found.Counts = append(found.Counts, ImageCount{Image: image})
		}
	}
	return found, nil
}

func (w *world) Wish(_ context.Context, wish state.Wish) error { return w.apply(wish).Err }
func (w *world) Room() Room                                    { return w.room }

func (w *world) newID() task.ID {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ids++
	return task.ID(fmt.Sprintf("t%d", w.ids))
}

// apply commits one command, as the leader of a cluster of one.
func (w *world) apply(c state.Command) state.Outcome {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	entry, err := proto.Marshal(&ecsv1.Entry{Commands: []*ecsv1.Command{state.ToWire(c, time.Now())}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.index++
	out, err := w.store.Apply(w.index, entry)
	if err != nil {
		w.t.Fatal(err)
	}
	return out[0]
}

func (w *world) PutKey(_ context.Context, k access.Key) error {
	if w.unmade != nil {
		return w.unmade
	}
	return w.apply(state.PutKey{Key: k}).Err
}

func (w *world) RevokeKey(_ context.Context, id, by string) error {
	return w.apply(state.RevokeKey{ID: id, By: by}).Err
}

func (w *world) Submit(_ context.Context, t *task.Task, quota int) (*task.Task, bool, error) {
	if w.refuse != nil {
		return nil, false, w.refuse
	}
	out := w.apply(state.Submit{Task: t, Quota: quota})
	if out.Err != nil {
		return nil, false, out.Err
	}
	return out.Task, out.Existed, nil
}

func (w *world) Stop(_ context.Context, id task.ID, owner string, outcome task.Outcome, reason string) (*task.Task, error) {
	out := w.apply(state.Stop{Task: id, Owner: owner, Outcome: outcome, Reason: reason})
	return out.Task, out.Err
}

func (w *world) CaughtUp() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.starting
}

func (w *world) Snapshot() *state.Snapshot { return w.store.Snapshot() }

func (w *world) CatchUp(ctx context.Context, _ uint64) error { return w.Sync(ctx) }

func (w *world) Sync(context.Context) error {
	w.mu.Lock()
	w.syncs++
	behind, catchUp := w.behind, w.catchUp
	w.catchUp = nil
	w.mu.Unlock()
	switch {
	case behind:
		return &task.Error{Code: task.CodeNoLeader, Message: "no leader"}
	case catchUp != nil:
		catchUp()
	}
	return nil
}

func (w *world) Explain(ctx context.Context, _ task.ID) (string, int, error) { return w.explain(ctx) }
func (w *world) Info(context.Context) ClusterInfo                            { return w.info }
func (w *world) Health(context.Context) Health                               { return w.health }

func (w *world) SendAway(_ context.Context, node string, force bool) (string, error) {
	if !force {
		return "", &task.Error{Code: task.CodeMembership, Message: "it can't be asked"}
	}
	return node + " goes", nil
}

func (w *world) RotateGossipKey(_ context.Context, by string) error {
	if w.info.Gossip.Step != "" {
		return &task.Error{Code: task.CodeRotation, Message: "one is under way"}
	}
	w.info.Gossip = Rotation{Version: 1, KeyID: "aa", NextID: "bb", Step: api.RotationAdd, StartedBy: by, StartedAt: time.Now(),
		Waiting: []Holder{{ID: "a1", Name: "one", Role: api.NodeAgent, Gone: true}}, Skipped: []string{"a2"}}
	return nil
}

func (w *world) Logs(_ context.Context, s LogSearch) LogsFound {
	w.search = s
	return w.logs
}

func (w *world) Drain(_ context.Context, node task.NodeID, drain bool) (*task.Node, error) {
	out := w.apply(state.SetNode{Node: node, Drain: &drain})
	return out.Node, out.Err
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// do makes a request as alice; header pairs may change that.
func (w *world) do(method, path, body string, header ...string) answer {
	w.t.Helper()
	a, err := w.try(method, path, body, header...)
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

func (w *world) try(method, path, body string, header ...string) (answer, error) {
	req, err := http.NewRequest(method, w.url+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	caller := alice // who may do what the path takes
	bare, _, _ := strings.Cut(path, "?")
	switch need := roleFor(route{method: method, path: bare}); {
	case strings.HasPrefix(bare, "/v1"): // also paths that are not there
	case need == access.Operate:
		caller = olga
	case need == access.Admin:
		caller = root
	}
	req.SetBasicAuth(caller, caller[:1]+"-secret")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i+1] == "" && header[i] == "Authorization" {
			req.Header.Del("Authorization")
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	a := answer{resp.StatusCode, resp.Header, got}
	d, bad := described()
	if bad == nil && err == nil {
		bad = d.check(method, path, body, a)
	}
	if bad != nil {
		w.t.Error(bad)
	}
	return a, err
}

func (w *world) task(a answer) api.Task {
	w.t.Helper()
	return decodeAs[api.Task](w.t, a)
}

func decodeAs[T any](t *testing.T, a answer) T {
	t.Helper()
	var v T
	dec := json.NewDecoder(bytes.NewReader(a.body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("answer %d %s: %v", a.status, a.body, err)
	}
	return v
}

// problem checks status and code of an error and gives it.
func (w *world) problem(a answer, status int, code api.Code) api.Problem {
	w.t.Helper()
	if a.status != status || a.header.Get("Content-Type") != api.ProblemType {
		w.t.Errorf("got %d %s %s, want %d with a problem", a.status, a.header.Get("Content-Type"), a.body, status)
		return api.Problem{}
	}
	p := decodeAs[api.Problem](w.t, a)
	if p.Code != code || p.Status != status || p.Title == "" || p.CID != a.header.Get(api.HeaderCID) || p.Type != "/docs#"+string(code) {
		w.t.Errorf("got problem %+v, want code %s", p, code)
	}
	return p
}

// basic gives an Authorization header.
func basic(key, secret string) string {
	r, _ := http.NewRequest(http.MethodGet, "/", nil)
	r.SetBasicAuth(key, secret)
	return r.Header.Get("Authorization")
}

// submitted commits a task of alice's and gives its id.
func (w *world) submitted(body string) task.ID {
	w.t.Helper()
	a := w.do(http.MethodPost, "/v2/tasks", body)
	if a.status != http.StatusAccepted {
		w.t.Fatalf("submit %s: got %d %s", body, a.status, a.body)
	}
	return task.ID(w.task(a).ID)
}

func newRecorder() *httptest.ResponseRecorder { return httptest.NewRecorder() }

func newRequest() *http.Request { return httptest.NewRequest(http.MethodGet, "/", nil) }

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
