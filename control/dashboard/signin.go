package dashboard

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"

	"ecs/proto/api"
)

// signIn is what the sign-in page shows.
type signIn struct {
	Next  string // where to go then
	Key   string // as it was typed
	Fault string
	Note  string
}

func (t *turn) signInPage() error {
	s := signIn{Next: t.next(t.r.URL.Query().Get("next"))}
	switch {
	case t.known:
		t.redirect(s.Next)
		return nil
	case t.v.Lapsed():
		s.Note = "The session has ended: after 12 hours, or because the key was revoked. Sign in again."
	case t.r.URL.Query().Has("out"):
		s.Note = "You are signed out."
	}
	return t.render(http.StatusOK, "signin", page{Title: "Sign in", Data: s})
}

// next takes only a page of the dashboard to go to, or it would send people
// anywhere.
func (t *turn) next(asked string) string {
	u, err := url.Parse(asked)
	if err != nil || u.IsAbs() || u.Host != "" || path.Clean(u.Path) != u.Path || !strings.HasPrefix(u.Path, t.d.base) ||
		strings.ContainsAny(asked, "\\\r\n\t") || strings.HasPrefix(u.Path, t.d.base+"sign-") {
		return t.d.base
	}
	return u.RequestURI()
}

// post takes the two forms there are. One that another site had sent is refused,
// beside what the cookie's SameSite does.
func (t *turn) post(path string) error {
	if err := t.d.cross.Check(t.r); err != nil {
		return &api.Problem{Status: http.StatusForbidden, Title: "Refused", Code: api.CodeBadRequest, Detail: "this form was sent by another site; open the dashboard itself and try there"}
	}
	switch path {
	case "sign-in":
		return t.signIn()
	case "sign-out":
		t.v.SignOut()
		t.redirect(t.d.base + "sign-in?out")
		return nil
	}
	return &api.Problem{Status: http.StatusMethodNotAllowed, Title: "Method not allowed", Code: api.CodeNotAllowed, Detail: "the dashboard only shows; use ecsctl or the API to change something"}
}

func (t *turn) signIn() error {
	t.r.Body = http.MaxBytesReader(t.w, t.r.Body, maxForm)
	if err := t.r.ParseForm(); err != nil {
		return &api.Problem{Status: http.StatusBadRequest, Title: "Bad request", Code: api.CodeBadRequest, Detail: fmt.Sprintf("the form can't be read: %v", err)}
	}
	s := signIn{Next: t.next(t.r.PostForm.Get("next")), Key: strings.TrimSpace(t.r.PostForm.Get("key"))}
	// Copied secrets carry a space or a newline; none has them at its ends.
	err := t.v.SignIn(s.Key, strings.TrimSpace(t.r.PostForm.Get("secret")))
	if err == nil {
		t.redirect(s.Next)
		return nil
	}
	var p *api.Problem
	if !errors.As(err, &p) {
		return err
	}
	t.w.Header().Del("WWW-Authenticate") // a browser would ask in a window of its own
	s.Fault = p.Detail + "."
	switch {
	case p.Code == api.CodeUnauthorized:
		s.Fault = "Key and secret do not belong together, or the key was revoked. Look for a missing character; the secret was shown once, when the key was made."
	case p.RetryAfter > 0:
		wait := seconds(p.RetryAfter)
		t.w.Header().Set("Retry-After", fmt.Sprint(wait))
		s.Fault = fmt.Sprintf("%s. Try again in %d s.", strings.ToUpper(p.Detail[:1])+p.Detail[1:], wait)
	}
	return t.render(p.Status, "signin", page{Title: "Sign in", Data: s})
}
