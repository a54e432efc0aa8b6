package dashboard

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"al.essio.dev/pkg/shellescape"

	"ecs/proto/api"
)

// terminal takes out of a text what would steer a terminal, and makes visible what
// would hide or turn around other text. A sequence that never ends hides no more
// than its line. assets/terminal.js does the same; both are held against
// testdata/terminal.json.
type terminal struct {
	state    terminalState
	returned bool // a carriage return was the last
}

type terminalState int

const (
	inText terminalState = iota
	inEscape
	inSequence // CSI: parameters until a letter
	inString   // OSC and the like: until BEL or ST
)

const escape = 0x1b

// plain gives a whole text without what would steer a terminal.
func plain(s string) string { return new(terminal).write(s) }

func (t *terminal) write(s string) string {
	if t.state == inText && !t.returned && strings.IndexFunc(s, steers) < 0 {
		return s
	}
	var b strings.Builder
	for _, c := range strings.ToValidUTF8(s, string(utf8.RuneError)) {
		t.take(c, &b)
	}
	return b.String()
}

func (t *terminal) take(c rune, b *strings.Builder) {
	after := t.returned
	t.returned = false
	switch t.state {
	case inEscape:
		t.state = inText
		switch {
		case c == '[':
			t.state = inSequence
			return
		case strings.ContainsRune("]PX^_", c):
			t.state = inString
			return
		case c >= ' ' && c <= '/': // more of it comes
			t.state = inEscape
			return
		case c >= '0' && c <= '~':
			return
		}
	case inSequence:
		if c >= ' ' && c <= '?' {
			return
		}
		t.state = inText
		if c >= '@' && c <= '~' {
			return
		}
	case inString:
		switch {
		case c == '\a' || c == 0x9c:
			t.state = inText
			return
		case c == escape: // of ESC \, which ends it
			t.state = inEscape
			return
		case c != '\n' && c != '\r':
			return
		}
		t.state = inText
	}
	t.show(c, after, b)
}

// show writes a character that belongs to no sequence, or begins one.
func (t *terminal) show(c rune, returned bool, b *strings.Builder) {
	switch {
	case c == escape:
		t.state = inEscape
	case c == 0x9b:
		t.state = inSequence
	case c == 0x90 || c == 0x98 || c >= 0x9d && c <= 0x9f:
		t.state = inString
	case c == '\r': // a terminal would write over the line; here nothing is hidden
		t.returned = true
		b.WriteByte('\n')
	case c == '\n' && returned:
	case c == '\n' || c == '\t':
		b.WriteRune(c)
	case c < ' ':
		b.WriteRune(0x2400 + c) // its picture
	case c == 0x7f:
		b.WriteRune(0x2421)
	case c >= 0x80 && c < 0xa0:
		b.WriteRune(utf8.RuneError)
	case turns(c):
		fmt.Fprintf(b, "<U+%04X>", c)
	default:
		b.WriteRune(c)
	}
}

// turns tells characters that change the direction of the text around them.
func turns(c rune) bool {
	return c == 0x61c || c == 0x200e || c == 0x200f || c >= 0x202a && c <= 0x202e || c >= 0x2066 && c <= 0x2069
}

func steers(c rune) bool {
	return c < ' ' && c != '\n' && c != '\t' || c >= 0x7f && c < 0xa0 || c == utf8.RuneError || turns(c)
}

// size gives bytes as people read them.
func size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if i == 0 || f >= 100 {
		return fmt.Sprintf("%.0f %s", f, units[i])
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}

// moment gives a time in UTC, to the second.
func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05")
}

// milliseconds gives a time so that the points stand below each other.
func milliseconds(f float64) string { return group(strconv.FormatFloat(f, 'f', 1, 64)) }

func count(n int) string { return group(strconv.Itoa(n)) }

// group puts narrow spaces between thousands.
func group(s string) string {
	whole, rest, point := strings.Cut(s, ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "\u202f" + whole[i:]
	}
	if point {
		return whole + "." + rest
	}
	return whole
}

// short cuts what identifies something to what a person compares: the end, for ids
// of one hour begin alike.
func short(id string) string {
	const keep = 8
	if len(id) <= keep+1 {
		return id
	}
	return "…" + id[len(id)-keep:]
}

// shell gives a command line as one would type it.
func shell(args []string) string {
	quoted := make([]string, len(args))
	for i, a := range args {
		quoted[i] = plain(shellescape.Quote(a))
	}
	return strings.Join(quoted, " ")
}

// cores gives thousandths of a core as cores.
func cores(milli int64) string { return api.CPU(milli).String() }

// clock gives a time of day in UTC, to the millisecond.
func clock(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("15:04:05.000")
}
