package api

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	mathbig "math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"ecs/control/state"
	"ecs/internal/access"
	"ecs/internal/pki"
	"ecs/internal/task"
	"ecs/proto/api"
)

// MakeToken plays package control.
func (w *world) MakeToken(_ context.Context, role string, ttl time.Duration, by string) (api.JoinToken, time.Time, error) {
	if w.unmade != nil {
		return api.JoinToken{}, time.Time{}, w.unmade
	}
	t := api.JoinToken{Pin: [32]byte{1}, Secret: sha256.Sum256([]byte(w.newID()))}
	ends := time.Now().Add(ttl)
	return t, ends, w.apply(state.PutToken{Token: access.Token{Hash: t.Hash(), Role: role, CreatedBy: by, ExpiresAt: ends}}).Err
}

func (w *world) Admit(_ context.Context, token api.JoinToken, role string, request []byte) (Admitted, error) {
	sum := sha256.Sum256(request)
	out := w.apply(state.SpendToken{Hash: token.Hash(), Role: role, Node: fmt.Sprintf("%x", sum[:4]), Request: sum})
	a := Admitted{Cluster: "test", Node: fmt.Sprintf("%x", sum[:4]), CertPEM: []byte("cert"), AuthorityPEM: []byte("ca"), GossipKey: []byte("g"), Join: []string{"c1:7946"}}
	return a, out.Err
}

func (w *world) Revoke(_ context.Context, r access.Revoked) error {
	return w.apply(state.RevokeCertificate{Certificate: r}).Err
}

func (w *world) Withdraw(_ context.Context, t *access.Token, by string) error {
	return w.apply(state.WithdrawToken(t, by)).Err
}

func (w *world) Vouched(t *access.Token) bool { return t.CreatedBy != "gone" }

// tokenID is how a token is listed.
func tokenID(t *testing.T, text string) string {
	t.Helper()
	token, err := api.ParseJoinToken(text)
	if err != nil {
		t.Fatal(err)
	}
	hash := token.Hash()
	return hex.EncodeToString(hash[:])
}

func TestJoinTokensAreListedAndTakenBack(t *testing.T) {
	w := newWorld(t)
	issue := func() (token, id string) {
		made := decodeAs[api.IssuedToken](t, w.do(http.MethodPost, "/v2/join/tokens", `{"role":"agent"}`))
		return made.Token, tokenID(t, made.Token)
	}
	join := func(token string) answer {
		return w.do(http.MethodPost, "/v2/join", fmt.Sprintf(`{"token":%q,"role":"agent","request":"r"}`, token), "Authorization", "")
	}
	used, usedID := issue()
	in := decodeAs[api.Admitted](t, join(used))
	back, backID := issue()
	for range 2 {
		if a := w.do(http.MethodDelete, "/v2/join/tokens/"+backID[:12], ""); a.status != http.StatusOK || decodeAs[api.Token](t, a).State != api.TokenWithdrawn {
			t.Errorf("got %d %s", a.status, a.body)
		}
	}
	w.problem(join(back), http.StatusForbidden, api.CodeToken)
	w.problem(w.do(http.MethodDelete, "/v2/join/tokens/"+usedID, ""), http.StatusConflict, api.CodeStale)
	w.problem(w.do(http.MethodDelete, "/v2/join/tokens/"+strings.Repeat("0", 64), ""), http.StatusNotFound, api.CodeNotFound)
	for _, bad := range []string{"abc", "zzzzzzzz", strings.Repeat("a", 65)} {
		w.problem(w.do(http.MethodDelete, "/v2/join/tokens/"+bad, ""), http.StatusBadRequest, api.CodeBadRequest)
	}
	_, openID := issue()
	w.apply(state.PutToken{Token: access.Token{Hash: [32]byte{7}, Role: "agent", CreatedBy: "gone", ExpiresAt: time.Now().Add(time.Minute)}})
	a := w.do(http.MethodGet, "/v2/join/tokens", "")
	states := make(map[string]string)
	for _, v := range decodeAs[api.TokenList](t, a).Tokens {
		states[v.ID] = v.State
		if v.ID == usedID && v.Node != in.Node {
			t.Errorf("got %+v, want the node that used it", v)
		}
	}
	void := "07" + strings.Repeat("0", 62)
	for id, want := range map[string]string{usedID: api.TokenUsed, backID: api.TokenWithdrawn, openID: api.TokenOpen, void: api.TokenVoid} {
		if states[id] != want {
			t.Errorf("token %s is %q, want %s", id, states[id], want)
		}
	}
	if strings.Contains(string(a.body), used) {
		t.Errorf("got %s, which shows a token", a.body)
	}
	w.problem(w.do(http.MethodGet, "/v2/join/tokens", "", "Authorization", basic(olga, "o-secret")), http.StatusForbidden, api.CodeForbidden)
	w.problem(w.do(http.MethodDelete, "/v2/join/tokens/"+openID, "", "Authorization", basic(olga, "o-secret")), http.StatusForbidden, api.CodeForbidden)
}

func TestAJoinTokenLetsOneNodeInOnce(t *testing.T) {
	w := newWorld(t)
	a := w.do(http.MethodPost, "/v2/join/tokens", `{"role":"agent"}`)
	if a.status != http.StatusCreated {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	made := decodeAs[api.IssuedToken](t, a)
	if left := time.Until(made.ExpiresAt); left < 14*time.Minute || left > api.DefaultTokenTTL {
		t.Errorf("got %v left", left)
	}
	join := func(role, request string) answer {
		return w.do(http.MethodPost, "/v2/join", fmt.Sprintf(`{"token":%q,"role":%q,"request":%q}`, made.Token, role, request), "Authorization", "")
	}
	w.problem(join(api.NodeControl, "r"), http.StatusForbidden, api.CodeToken)
	first := join(api.NodeAgent, "r")
	if first.status != http.StatusCreated || decodeAs[api.Admitted](t, first).SealKey != "" {
		t.Fatalf("got %d %s", first.status, first.body)
	}
	if again := join(api.NodeAgent, "r"); string(again.body) != string(first.body) {
		t.Errorf("got %s for the same request again", again.body)
	}
	w.problem(join(api.NodeAgent, "another"), http.StatusForbidden, api.CodeToken)
	unknown := api.JoinToken{Secret: [32]byte{9}}
	w.problem(w.do(http.MethodPost, "/v2/join", fmt.Sprintf(`{"token":%q,"role":"agent","request":"r"}`, unknown)), http.StatusForbidden, api.CodeToken)
	p := w.problem(w.do(http.MethodPost, "/v2/join", `{"token":"x","role":"root","color":1}`), http.StatusBadRequest, api.CodeInvalidTask)
	if len(p.Errors) != 4 {
		t.Errorf("got %+v, want token, role, request and color named", p.Errors)
	}
	w.problem(w.do(http.MethodPost, "/v2/join/tokens", `{"role":"agent","ttl":"2h"}`), http.StatusBadRequest, api.CodeInvalidTask)
	w.problem(w.do(http.MethodPost, "/v2/join/tokens", `{"role":"agent"}`, "Authorization", basic(olga, "o-secret")), http.StatusForbidden, api.CodeForbidden)
}

// What a stranger makes up reaches nobody who signs or writes, and the leader no
// oftener than an address may guess.
func TestMadeUpTokensWriteNothing(t *testing.T) {
	w := newWorld(t)
	index := w.Snapshot().Index()
	join := func(secret int) answer {
		unknown := api.JoinToken{Secret: sha256.Sum256(fmt.Append(nil, secret))}
		return w.do(http.MethodPost, "/v2/join", fmt.Sprintf(`{"token":%q,"role":"agent","request":"r"}`, unknown), "Authorization", "")
	}
	tried, a := 0, join(0)
	for ; a.status != http.StatusTooManyRequests && tried < 5*guessBurst; tried++ {
		w.problem(a, http.StatusForbidden, api.CodeToken)
		a = join(tried + 1)
	}
	w.excess(a, api.CodeRateLimited, limitGuesses)
	if now := w.Snapshot().Index(); now != index || w.syncs != tried || tried < guessBurst {
		t.Errorf("%d tokens that nobody made wrote %d entries and asked the leader %d times", tried, now-index, w.syncs)
	}
	// Who has one is not held up by it.
	made := decodeAs[api.IssuedToken](t, w.do(http.MethodPost, "/v2/join/tokens", `{"role":"agent"}`))
	if a := w.do(http.MethodPost, "/v2/join", fmt.Sprintf(`{"token":%q,"role":"agent","request":"r"}`, made.Token)); a.status != http.StatusCreated {
		t.Errorf("got %d %s", a.status, a.body)
	}
}

func TestTokensDoNotCrossANetworkInTheClear(t *testing.T) {
	w := newWorld(t)
	for remote, want := range map[string]int{"192.0.2.1:5": http.StatusForbidden, "127.0.0.1:5": http.StatusBadRequest, "[::1]:5": http.StatusBadRequest, "": http.StatusForbidden} {
		r := httptest.NewRequest(http.MethodPost, "/v2/join", strings.NewReader(`{}`))
		r.RemoteAddr = remote
		rec := newRecorder()
		w.handler.ServeHTTP(rec, r)
		if rec.Code != want {
			t.Errorf("%q: got %d, want %d", remote, rec.Code, want)
		}
	}
}

func TestCertificatesAreRevokedAndListed(t *testing.T) {
	w := newWorld(t)
	for _, body := range []string{`{"node":"a1"}`, `{"serial":"ab12"}`} {
		a := w.do(http.MethodPost, "/v2/revocations", body)
		if v := decodeAs[api.Revocation](t, a); a.status != http.StatusCreated || v.RevokedBy != root || v.RevokedAt.IsZero() {
			t.Errorf("%s: got %d %s", body, a.status, a.body)
		}
	}
	if list := decodeAs[api.RevocationList](t, w.do(http.MethodGet, "/v2/revocations", "")); len(list.Revocations) != 2 {
		t.Errorf("got %+v", list)
	}
	for _, bad := range []string{`{}`, `{"node":"n","serial":"ab"}`, `{"serial":"XY"}`, `{"serial":"00"}`, `{"serial":"` + strings.Repeat("a", 41) + `"}`, `{"node":"n","why":1}`} {
		w.problem(w.do(http.MethodPost, "/v2/revocations", bad), http.StatusBadRequest, api.CodeInvalidTask)
	}
}

// A revocation that would match no certificate is mended or refused, never answered
// as if it had been made.
func TestWhatIsRevokedIsWhatCertificatesSay(t *testing.T) {
	w := newWorld(t)
	w.info.Members[0].Name = "control-1"
	w.info.Members = append(w.info.Members, Member{ID: "c2", Name: "both", Role: "control"})
	w.apply(state.Register{Node: task.Node{ID: "a2", Name: "both", Capacity: task.Capacity{MilliCPU: 1000, Memory: 1 << 30}}})
	revoke := func(body string) answer { return w.do(http.MethodPost, "/v2/revocations", body) }
	for body, want := range map[string]api.Revocation{
		`{"serial":"0a3f"}`:                 {Serial: "a3f"}, // as openssl x509 -serial prints it
		`{"serial":"00:FE:01"}`:             {Serial: "fe01"},
		`{"node":"agent-1"}`:                {Node: "a1"}, // a name
		`{"node":"control-1"}`:              {Node: "c1"},
		`{"node":"c1"}`:                     {Node: "c1"},
		`{"node":"long-gone","force":true}`: {Node: "long-gone"},
	} {
		a := revoke(body)
		if got := decodeAs[api.Revocation](t, a); a.status != http.StatusCreated || got.Node != want.Node || got.Serial != want.Serial {
			t.Errorf("%s: got %d %s, want %+v", body, a.status, a.body, want)
		}
	}
	if w.Snapshot().RevokedSerial(pki.SerialOf(&x509.Certificate{SerialNumber: mathbig.NewInt(0xa3f)})) == nil {
		t.Error("the certificate with the number 0xa3f counts still")
	}
	w.problem(revoke(`{"node":"agent-7"}`), http.StatusNotFound, api.CodeNotFound)
	w.problem(revoke(`{"node":"both"}`), http.StatusBadRequest, api.CodeBadRequest)
	w.problem(revoke(`{"node":"both","force":true}`), http.StatusBadRequest, api.CodeBadRequest)

	// One that was let in and never came is known by the token that it used up.
	made := decodeAs[api.IssuedToken](t, w.do(http.MethodPost, "/v2/join/tokens", `{"role":"agent"}`))
	in := decodeAs[api.Admitted](t, w.do(http.MethodPost, "/v2/join", fmt.Sprintf(`{"token":%q,"role":"agent","request":"r"}`, made.Token)))
	if a := revoke(fmt.Sprintf(`{"node":%q}`, in.Node)); a.status != http.StatusCreated {
		t.Errorf("got %d %s for a node that was let in", a.status, a.body)
	}
}

// FuzzParseAdmission: whatever the bytes are, what is taken is whole.
func FuzzParseAdmission(f *testing.F) {
	f.Add([]byte(`{"token":"` + api.JoinToken{}.String() + `","role":"agent","request":"r"}`))
	f.Add([]byte(`{"role":"agent","ttl":"5m"}`))
	f.Add([]byte(`{"serial":"ab"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, role, request, err := parseAdmission(body); err == nil && (len(request) == 0 || role != api.NodeAgent && role != api.NodeControl) {
			t.Errorf("got role %q and a request of %d bytes", role, len(request))
		}
		if r, err := parseTokenRequest(body); err == nil && (r.TTL <= 0 || time.Duration(r.TTL) > api.MaxTokenTTL) {
			t.Errorf("got %+v", r)
		}
		if v, _, err := parseRevocation(body); err == nil && ((v.Serial == "") == (v.Node == "") || strings.HasPrefix(v.Serial, "0")) {
			t.Errorf("got %+v", v)
		}
	})
}
