package api

import (
	"crypto/hmac"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"strconv"
	"strings"
	"time"

	"ecs/internal/access"
)

const (
	// sessionFor is how long a browser stays signed in.
	sessionFor = 12 * time.Hour
	// cookieBare and cookieSecure name the session's cookie without and with TLS:
	// under a __Host- name a browser takes none that another host set, or that
	// came in the clear.
	cookieBare   = "ecs_session"
	cookieSecure = "__Host-" + cookieBare
	// maxToken bounds what is looked at of a cookie.
	maxToken = 1024
)

// A session is a token that the cluster's key signs over key, end and stored hash
// of the secret. So it counts on every control node and over a restart, nothing is
// kept of it, and it ends with the key: one that is revoked, or has another secret,
// signs another token.

func (h *Handler) signSession(key, stamp string, until int64) []byte {
	text := []byte("ecs dashboard session v1\x00")
	for _, part := range []string{key, stamp} {
		text = binary.BigEndian.AppendUint64(text, uint64(len(part)))
		text = append(text, part...)
	}
	return h.cfg.Sealer.MAC(binary.BigEndian.AppendUint64(text, uint64(until)))
}

// beginSession sets the cookie of a key whose secret was right.
func (h *Handler) beginSession(w http.ResponseWriter, r *http.Request, key string) error {
	_, stamp, ok := h.cfg.Auth.Holder(key)
	if !ok { // revoked in the moment since
		return errRefusedPair()
	}
	until := h.cfg.Now().Add(sessionFor).Unix()
	encode := base64.RawURLEncoding.EncodeToString
	token := strings.Join([]string{encode([]byte(key)), strconv.FormatInt(until, 36), encode(h.signSession(key, stamp, until))}, ".")
	setSession(w, r, token, int(sessionFor/time.Second))
	return nil
}

func endSession(w http.ResponseWriter, r *http.Request) { setSession(w, r, "", -1) }

func setSession(w http.ResponseWriter, r *http.Request, token string, maxAge int) {
	http.SetCookie(w, &http.Cookie{Name: cookieName(r), Value: token, Path: "/", MaxAge: maxAge,
		HttpOnly: true, Secure: cameSecure(r), SameSite: http.SameSiteStrictMode})
}

func cookieName(r *http.Request) string {
	if cameSecure(r) {
		return cookieSecure
	}
	return cookieBare
}

// cameSecure reports whether a request came over TLS, ours or that of a proxy that
// counts.
func cameSecure(r *http.Request) bool {
	x := exchangeOf(r)
	return r.TLS != nil || x != nil && x.secure
}

func hasSession(r *http.Request) bool {
	c, err := r.Cookie(cookieName(r))
	return err == nil && c.Value != ""
}

// visitor finds out whose session came with a request.
func (h *Handler) visitor(r *http.Request) (access.Principal, bool) {
	c, err := r.Cookie(cookieName(r))
	if err != nil || len(c.Value) > maxToken {
		return access.Principal{}, false
	}
	parts := strings.Split(c.Value, ".")
	if len(parts) != 3 {
		return access.Principal{}, false
	}
	decode := base64.RawURLEncoding.Strict().DecodeString
	key, badKey := decode(parts[0])
	until, badEnd := strconv.ParseInt(parts[1], 36, 64)
	sum, badSum := decode(parts[2])
	if badKey != nil || badEnd != nil || badSum != nil {
		return access.Principal{}, false
	}
	who, stamp, ok := h.cfg.Auth.Holder(string(key))
	if !ok || !hmac.Equal(sum, h.signSession(string(key), stamp, until)) || h.cfg.Now().Unix() >= until {
		return access.Principal{}, false
	}
	return who, true
}
