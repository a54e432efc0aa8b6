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
