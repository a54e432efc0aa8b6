package docker_test

import (
	"errors"
	"testing"
	"time"

	"github.com/docker/docker/api/types/image"

	"ecs/agent/runtime"
	"ecs/test/images"
)

// TestImageIsAskedForAgainWhenItMayHaveChanged: a name that is given to another
// image, or taken away, is what it is now and not what it was.
func TestImageIsAskedForAgainWhenItMayHaveChanged(t *testing.T) {
	c := engine(t)
	r := newRuntime(t, c, newCluster(t, c), "n", false)
	const name = "ecs-test/lookups:1"
	is := func() string {
		found, err := r.Inspect(t.Context(), name)
		if errors.Is(err, runtime.ErrNoImage) {
			return ""
		} else if err != nil {
			t.Fatal(err)
		}
		return found.ID
	}
	becomes := func(want string) {
		t.Helper()
		for deadline := time.Now().Add(5 * time.Second); is() != want; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("got %q, want %q", is(), want)
			}
		}
	}
	for _, from := range []string{images.Busybox, images.Prog, images.Busybox} {
		want := imageOf(t, c, from).ID
		if err := c.ImageTag(t.Context(), from, name); err != nil {
			t.Fatal(err)
		}
		becomes(want)
		becomes(want) // and stays, from memory
	}
	if _, err := c.ImageRemove(t.Context(), name, image.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	becomes("")
}
