package api

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"ecs/internal/task"
	"ecs/proto/api"
)

func TestImagesAndWishes(t *testing.T) {
	w := newWorld(t)
	warm := func(body string) answer { return w.do(http.MethodPost, "/v2/images/warm", body) }
	if got := warm(`{"image":"busybox:1","count":3}`); got.status != http.StatusOK {
		t.Fatalf("got %d %s, want 200", got.status, got.body)
	}
	wished, ok := w.Snapshot().Wish("busybox:1")
	plain := task.Spec{Image: "busybox:1"}.WithDefaults(task.V2, true)
	if !ok || wished.Count != 3 || wished.Owner != olga || wished.Spec.Shape() != plain.Shape() {
		t.Errorf("got %+v, want 3 of a plain task's shape for %s", wished, olga)
	}
	list := decodeAs[api.ImageList](t, w.do(http.MethodGet, "/v2/images", ""))
	if want := (api.Image{Image: "busybox:1", Nodes: 1, Warm: 3, Parked: 2}); len(list.Images) != 1 || list.Images[0] != want {
		t.Errorf("got %+v, want %+v", list, want)
	}
	for path, want := range map[string]int{"/v2/images?node=agent-1": 200, "/v2/images?node=nobody": 404, "/v2/images?nodes=a": 400} {
		if got := w.do(http.MethodGet, path, "").status; got != want {
			t.Errorf("%s: got %d, want %d", path, got, want)
		}
	}
	if got := warm(`{"image":"busybox:1","count":0}`); got.status != http.StatusOK {
		t.Errorf("taken back: got %d %s", got.status, got.body)
	}
	if _, ok := w.Snapshot().Wish("busybox:1"); ok {
		t.Error("the wish is still there")
	}
}

// TestWishesThatCanNotComeTrueAreToldSo: when they are made, and as long as they are
// looked at.
func TestWishesThatCanNotComeTrueAreToldSo(t *testing.T) {
	for name, c := range map[string]struct {
		image string
		room  Room
		want  []string // one in each note
	}{
		"all is well":          {"busybox:1", Room{Nodes: 2, Off: 1, Wished: 3, Fits: 3}, nil},
		"pools are off":        {"busybox:1", Room{Nodes: 2, Off: 2, Wished: 3}, []string{"--warm-count above 0"}},
		"too little room":      {"busybox:1", Room{Nodes: 2, Wished: 9, Fits: 4}, []string{"wished for (9) nodes have room for 4 of their shares: raise"}},
		"and an unequal one":   {"busybox:1", Room{Nodes: 3, Off: 2, Wished: 9, Fits: 3}, []string{"2 of 3 nodes is off"}},
		"no node takes tasks":  {"nosuch:1", Room{Wished: 3}, []string{"no node takes tasks"}},
		"the image is nowhere": {"nosuch:1", Room{Nodes: 2, Wished: 3, Fits: 3}, []string{"holds nosuch:1"}},
		"nothing of it all":    {"nosuch:1", Room{Nodes: 2, Off: 2, Wished: 3}, []string{"--warm-count above 0", "holds nosuch:1"}},
	} {
		w := newWorld(t)
		w.room = c.room
		made := decodeAs[api.WarmAnswer](t, w.do(http.MethodPost, "/v2/images/warm", fmt.Sprintf(`{"image":%q,"count":3}`, c.image)))
		list := decodeAs[api.ImageList](t, w.do(http.MethodGet, "/v2/images", ""))
		for who, notes := range map[string][]string{"the wish": made.Notes, "the list": list.Notes} {
			if len(notes) != len(c.want) {
				t.Errorf("%s: %s says %q, want %d notes", name, who, notes, len(c.want))
				continue
			}
			for i, want := range c.want {
				if !strings.Contains(notes[i], want) {
					t.Errorf("%s: %s says %q, want %q in it", name, who, notes[i], want)
				}
			}
		}
		if one := decodeAs[api.ImageList](t, w.do(http.MethodGet, "/v2/images?node=a1", "")); len(one.Notes) != 0 {
			t.Errorf("%s: one node's images say %q of the whole cluster", name, one.Notes)
		}
	}
}

func TestWishesThatAreTakenBackNeedNoNotes(t *testing.T) {
	w := newWorld(t)
	w.room = Room{Nodes: 1, Off: 1, Wished: 4} // of other images
	if got := decodeAs[api.WarmAnswer](t, w.do(http.MethodPost, "/v2/images/warm", `{"image":"nosuch:1","count":0}`)); len(got.Notes) != 0 {
		t.Errorf("got %q", got.Notes)
	}
}

func TestANoteNamesFewImages(t *testing.T) {
	var images []api.Image
	for i := range 9 {
		images = append(images, api.Image{Image: fmt.Sprintf("i%d:1", i), Warm: i, Nodes: i / 8})
	}
	images = append(images, api.Image{Image: "just-pulled:1", Warm: 1, Parked: 1})
	if got, want := nowhere(images), "i1:1, i2:1, i3:1, 4 others"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestBadWishes(t *testing.T) {
	w := newWorld(t)
	for body, pointer := range map[string]string{
		`{"image":"busybox:1"}`:                        "/count",
		`{"image":"busybox:1","count":-1}`:             "/count",
		`{"image":"busybox:1","count":5000}`:           "/count",
		`{"image":"busybox:1","count":"a"}`:            "/count",
		`{"count":1}`:                                  "/image",
		`{"image":"busybox:1","count":1,"memory":"1"}`: "/memory",
	} {
		got := w.do(http.MethodPost, "/v2/images/warm", body)
		if got.status != http.StatusBadRequest || !strings.Contains(string(got.body), fmt.Sprintf("%q", pointer)) {
			t.Errorf("%s: got %d %s, want 400 that points at %s", body, got.status, got.body, pointer)
		}
	}
}
