package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestVerifyAndLoadPassOnAWholeCluster(t *testing.T) {
	c := sharedCluster(t)
	out, errOut, code := c.ecsctl("verify", "--image", busybox, "--drain")
	if code != 0 || strings.Contains(out, "FAIL") || strings.Count(out, "ok ") < 20 {
		t.Errorf("got exit %d\n%s%s", code, out, errOut)
	}
	svg := filepath.Join(t.TempDir(), "load.svg")
	out, errOut, code = c.ecsctl("load", "--image", busybox, "--rate", "5", "--duration", "2s", "--mix", "run=1,list=2,noop=2", "--svg", svg)
	if code != 0 || strings.Count(out, "\n") < 3 || !strings.HasPrefix(out, "kind\t") {
		t.Errorf("load: got exit %d\n%s%s", code, out, errOut)
	}
	if plot, err := os.ReadFile(svg); err != nil || !strings.Contains(string(plot), "p99") {
		t.Errorf("plot: got %.80s, %v", plot, err)
	}
	if _, errOut, code = c.ecsctl("verify", "--api-secret", "wrong"); code != 1 || !strings.Contains(errOut, "checks failed") {
		t.Errorf("with a wrong secret: got exit %d, %s", code, errOut)
	}
}
