package dashboard

import (
	"encoding/json"
	"io/fs"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"testing"

	"ecs/proto/api"
)

func TestTextSteersNoTerminal(t *testing.T) {
	text, err := os.ReadFile("testdata/terminal.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name, Out string
		In        []string
	}
	if err := json.Unmarshal(text, &cases); err != nil || len(cases) < 10 {
		t.Fatalf("got %d cases, %v", len(cases), err)
	}
	for _, c := range cases {
		var s terminal
		got := ""
		for _, piece := range c.In {
			got += s.write(piece)
		}
		if got != c.Out {
			t.Errorf("%s: got %q, want %q", c.Name, got, c.Out)
		}
		if whole := plain(strings.Join(c.In, "")); whole != c.Out {
			t.Errorf("%s in one piece: got %q, want %q", c.Name, whole, c.Out)
		}
	}
}

func FuzzPlainSteersNoTerminal(f *testing.F) {
	for _, s := range []string{"a\x1b[1mb", "\x1b]0;x\x07", "\x9b\xff\r\n", "\u202e"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := plain(s)
		for _, c := range got {
			if c < ' ' && c != '\n' && c != '\t' || c >= 0x7f && c < 0xa0 || turns(c) {
				t.Fatalf("%q became %q, which holds %q", s, got, c)
			}
		}
		if strings.Count(got, "\n") < strings.Count(s, "\n")-strings.Count(s, "\r\n") {
			t.Fatalf("%q became %q: lines are gone", s, got)
		}
		if again := plain(got); again != got {
			t.Fatalf("%q became %q and then %q", s, got, again)
		}
	})
}

func TestWaterfallHasEveryPartOnceBehindTheOther(t *testing.T) {
	ms := func(f float64) *float64 { return &f }
	w := waterfallOf(&api.Times{Accepted: ms(1), Queued: ms(0), Create: ms(9), Run: ms(80), Reported: ms(0.01), Transfer: ms(10), Total: ms(100.01)})
	at := 0.0
	names := make([]string, 0, len(w.Parts))
	for _, p := range w.Parts {
		names = append(names, p.Name)
		if p.MS == 0 && p.Width != 0 || p.MS > 0 && p.Width < narrowest {
			t.Errorf("%s took %g ms and is %g wide", p.Name, p.MS, p.Width)
		}
		if p.Begin < at-narrowest || p.Begin+p.Width > 1000.001 {
			t.Errorf("%s goes from %g to %g, want it behind %g and within 1000", p.Name, p.Begin, p.Begin+p.Width, at)
		}
		at = p.Begin + p.Width
	}
	if got := strings.Join(names, " "); got != "accepted queued create run reported transfer" || w.Total != 100.01 {
		t.Errorf("got parts %s, total %g", got, w.Total)
	}
	if w := waterfallOf(&api.Times{}); len(w.Parts) != 0 || w.Total != 0 {
		t.Errorf("got %+v of an empty bill", w)
	}
}

// What a policy forbids and a browser would only tell on its console.
func TestPagesHoldNoScriptStyleOrForeignAddress(t *testing.T) {
	bad := regexp.MustCompile(`(?i)<style|\sstyle=|\son[a-z]+=|javascript:|https?://|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|setInterval`)
	for _, dir := range []struct {
		files fs.FS
		name  string
	}{{templateFiles, "templates"}, {assetFiles, "assets"}} {
		err := fs.WalkDir(dir.files, dir.name, func(name string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			text, err := fs.ReadFile(dir.files, name)
			for _, found := range bad.FindAllString(strings.ReplaceAll(string(text), "http://www.w3.org/2000/svg", ""), -1) {
				t.Errorf("%s holds %q", name, found)
			}
			if n := strings.Count(string(text), "\n"); n > 400 {
				t.Errorf("%s has %d lines", name, n)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestAssetsAreNamedByWhatTheyHold(t *testing.T) {
	d, err := New("/ui/", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(d.assets.base, "/ui/assets/") || len(d.assets.files) < 5 {
		t.Errorf("got %d assets at %s", len(d.assets.files), d.assets.base)
	}
	for name, a := range d.assets.files {
		if a.kind == "" || a.body == "" {
			t.Errorf("%s: kind %q, %d bytes", name, a.kind, len(a.body))
		}
	}
}

func TestNextIsOnlyAPageOfTheDashboard(t *testing.T) {
	tn := &turn{d: &Dashboard{base: "/ui/"}}
	for asked, want := range map[string]string{
		"": "/ui/", "/ui/tasks?state=running": "/ui/tasks?state=running", "/ui/tasks/x": "/ui/tasks/x",
		"//evil.example/ui/": "/ui/", "https://evil.example/ui/": "/ui/", "/v2/tasks": "/ui/", "/ui/../v2/tasks": "/ui/",
		`/ui/\evil`: "/ui/", "/ui/sign-out": "/ui/", "javascript:alert(1)": "/ui/", "/ui//evil.example": "/ui/", "/ui/%2e%2e/x": "/ui/",
	} {
		if got := tn.next(asked); got != want {
			t.Errorf("next %q: got %q, want %q", asked, got, want)
		}
	}
}

func TestFiguresReadAsPeopleWriteThem(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{size(0), "0 B"}, {size(1023), "1023 B"}, {size(1536), "1.5 KiB"}, {size(64 << 30), "64.0 GiB"}, {size(300 << 20), "300 MiB"},
		{milliseconds(1234567.89), "1\u202f234\u202f567.9"}, {count(12), "12"}, {count(123456), "123\u202f456"},
		{shell([]string{"sh", "-c", "echo 'hi'; \x1b[1m"}), `sh -c 'echo '"'"'hi'"'"'; '`}, {shell([]string{""}), "''"},
		{short("01m2345678901234567890"), "…34567890"}, {short("a1"), "a1"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}
