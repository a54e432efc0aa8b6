package telemetry

import "strings"

// TraceID is the trace id of a W3C traceparent, or empty when that is none.
func TraceID(parent string) string {
	if !SaneTrace(parent) {
		return ""
	}
	return parent[3:35]
}

// SaneTrace reports whether text is a W3C traceparent, of version 00 or, as far
// as that one goes, of a later one.
func SaneTrace(text string) bool {
	if len(text) < 55 || len(text) > 55 && (text[:2] == "00" || text[55] != '-') || len(text) > 256 || text[:2] == "ff" {
		return false
	}
	for i, c := range []byte(text[:55]) {
		if i == 2 || i == 35 || i == 52 {
			if c != '-' {
				return false
			}
		} else if !strings.ContainsRune("0123456789abcdef", rune(c)) {
			return false
		}
	}
	return strings.Trim(text[3:35], "0") != "" && strings.Trim(text[36:52], "0") != ""
}
