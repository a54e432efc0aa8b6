package telemetry

import (
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

// hidden stands where something was left out.
const hidden = "[redacted]"

// secretNames are attributes whose values are never written, in lower case and
// without separators.
var secretNames = map[string]bool{
	"authorization": true, "proxyauthorization": true, "auth": true, "registryauth": true, "cookie": true, "setcookie": true,
	"secret": true, "secrets": true, "secretenv": true, "password": true, "passwd": true, "token": true, "jointoken": true,
	"apikey": true, "apisecret": true, "privatekey": true, "sealkey": true, "gossipkey": true, "credentials": true, "stdin": true,
}

var separators = strings.NewReplacer("_", "", "-", "", ".", "")

// redact is a slog.HandlerOptions.ReplaceAttr. It goes by names and types, not
// by what texts look like: that is Redacted's, for lines that leave the node.
func redact(_ []string, a slog.Attr) slog.Attr {
	if len(a.Key) >= len("auth") && secretNames[separators.Replace(strings.ToLower(a.Key))] {
		return slog.String(a.Key, hidden)
	}
	if a.Value.Kind() != slog.KindAny {
		return a
	}
	switch v := a.Value.Any().(type) {
	case http.Header, *http.Request:
		return slog.String(a.Key, hidden)
	case *url.URL:
		return slog.String(a.Key, v.Redacted())
	}
	return a
}

// The patterns of secrets in text. None begins or ends outside a JSON string.
var (
	schemes  = regexp.MustCompile(`(?i)\b(basic|bearer)\s+[A-Za-z0-9+/=._~-]{6,}`)
	userinfo = regexp.MustCompile(`(://)[^/\s"@:]*:[^/\s"@]*@`)
	tokens   = regexp.MustCompile(`\becsjoin1\.[A-Za-z0-9_-]+`)
	named    = regexp.MustCompile(`(?i)\b(password|passwd|secret|token)=[^\s"&\\]+`)
)

// Redacted is a line of the log without what looks like an authorization, the
// user and password of a URL, a join token, or a secret given by name.
func Redacted(line []byte) []byte {
	line = schemes.ReplaceAll(line, []byte("$1 "+hidden))
	line = userinfo.ReplaceAll(line, []byte("$1"+hidden+"@"))
	line = tokens.ReplaceAll(line, []byte(hidden))
	return named.ReplaceAll(line, []byte("$1="+hidden))
}
