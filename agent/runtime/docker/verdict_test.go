package docker

import (
	"path/filepath"
	"testing"

	"github.com/docker/docker/client"

	"ecs/internal/initwire"
)

// An engine that goes ends its containers with a signal to init, which says so. About a
// program that succeeds without one nothing is asked: here every question finds the
// engine gone.
func TestEngineIsAskedOnlyWhereItMayHaveEndedTheProgram(t *testing.T) {
	gone, err := client.NewClientWithOpts(client.WithHost("unix://" + filepath.Join(t.TempDir(), "gone.sock")))
	if err != nil {
		t.Fatal(err)
	}
	defer gone.Close()
	for name, tt := range map[string]struct {
		exit initwire.Exit
		want string
	}{
		"by itself":           {initwire.Exit{Code: 0}, ""},
		"fails":               {initwire.Exit{Code: 3}, engineLost},
		"signal through init": {initwire.Exit{Code: 0, Passed: true}, engineLost},
		"killed":              {initwire.Exit{Code: 143, Signal: 15}, engineLost},
	} {
		c := &attempt{r: &Runtime{client: gone}, exits: make(chan exitNote, 1)}
		tt.exit.Cause = initwire.CauseProgram
		if got := c.told(t.Context(), tt.exit); got.Interrupted != tt.want || got.Code != tt.exit.Code {
			t.Errorf("%s: got %+v, want code %d and interrupted %q", name, got, tt.exit.Code, tt.want)
		}
	}
}
