package registry

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// RequireTokens makes the registry demand a bearer token for everything, as
// Docker Hub does: anonymous callers get one too, but it opens public
// repositories only. hideAs is what a caller then gets for a repository that is
// missing or not for him: 401 (UNAUTHORIZED, Docker Hub's answer), 403 (DENIED)
// or 0 for the truth (404 for a missing repository, 403 for a private one).
func (r *Registry) RequireTokens(hideAs int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.tokens, r.mu.hideAs = true, hideAs
}

// AddUser lets name in with password. A wrong password gets 401 from the token
// endpoint.
func (r *Registry) AddUser(name, password string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.users[name] = password
}

// Private closes a repository to everybody but the users named, none to begin
// with. It has an effect only with RequireTokens.
func (r *Registry) Private(repo string, users ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.private[repo] = users
}

// token is the token endpoint.
func (r *Registry) token(w http.ResponseWriter, req *http.Request) {
	user, password, basic := req.BasicAuth()
	r.mu.Lock()
	want, known := r.mu.users[user]
	refused := basic && (!known || want != password)
	token := ""
	if !refused {
		r.serial++
		token = fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%s %d", user, r.serial)))
		r.mu.granted[token] = user
	}
	r.mu.Unlock()

	if refused {
		refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "incorrect username or password")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "expires_in": 300})
}

// admit decides whether the request may go on to the store, and answers it
// when it may not.
func (r *Registry) admit(w http.ResponseWriter, req *http.Request, repo string) bool {
	r.mu.Lock()
	tokens, hideAs := r.mu.tokens, r.mu.hideAs
	token, _ := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
	user, granted := r.mu.granted[token]
	missing := repo != "" && !r.mu.repos[repo]
	readers, private := r.mu.private[repo]
	r.mu.Unlock()

	if !tokens {
		return true
	}
	challenge := fmt.Sprintf(`Bearer realm="http://%s/token",service="registry.test"`, req.Host)
	if repo != "" {
		challenge += fmt.Sprintf(`,scope="repository:%s:pull"`, repo)
	}
	if !granted {
		w.Header().Set("WWW-Authenticate", challenge)
		refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
		return false
	}
	closed := private && !slices.Contains(readers, user)
	switch {
	case !missing && !closed:
		return true
	case hideAs == http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", challenge+`,error="insufficient_scope"`)
		refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
	case hideAs == http.StatusForbidden, closed:
		refuse(w, http.StatusForbidden, "DENIED", "requested access to the resource is denied")
	default:
		return true // the store says that it is missing
	}
	return false
}
