package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"ecs/test/registry"
)

// progImage is the test program as an image for a registry.
func progImage(t *testing.T) registry.Image {
	t.Helper()
	file := filepath.Join(t.TempDir(), "prog")
	build := exec.Command("go", "build", "-o", file, "ecs/test/images/prog")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build prog: %v\n%s", err, out)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return registry.Image{Files: map[string][]byte{"/prog": text}, Cmd: []string{"/prog"}}
}
