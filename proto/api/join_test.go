package api

import (
	"strings"
	"testing"
)

func TestJoinTokensComeBackWhole(t *testing.T) {
	want := JoinToken{Pin: [32]byte{1, 2}, Secret: [32]byte{3, 4}}
	for _, text := range []string{want.String(), " " + want.String() + "\n"} {
		if got, err := ParseJoinToken(text); err != nil || got != want {
			t.Errorf("got %v, %v", got, err)
		}
	}
	text := want.String()
	for _, bad := range []string{"", tokenPrefix, text[:len(text)-1], text + "A", text[1:], strings.ToUpper(text), strings.TrimPrefix(text, tokenPrefix)} {
		if _, err := ParseJoinToken(bad); err == nil {
			t.Errorf("%q is taken", bad)
		} else if len(bad) > 20 && strings.Contains(err.Error(), bad[10:20]) {
			t.Errorf("got %v, which shows the token", err)
		}
	}
	if want.Hash() == want.Secret || want.Hash() == (JoinToken{}).Hash() {
		t.Error("the hash is not one")
	}
}

func FuzzParseJoinToken(f *testing.F) {
	f.Add(JoinToken{}.String())
	f.Add("ecsjoin1.AAAA")
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := ParseJoinToken(s)
		if err == nil && tok.String() != strings.TrimSpace(s) {
			t.Errorf("%q is also taken for %q", s, tok)
		}
	})
}
