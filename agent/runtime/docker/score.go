package docker

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// lowestScore is the least oom_score_adj that the engine can give: below its
// own it takes a privilege, which an engine that is confined itself may lack.
// It refuses to start what asks for more, without saying why.
func (r *Runtime) lowestScore(ctx context.Context) (int, error) {
	conn, err := r.client.Dialer()(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	local, ok := conn.(*net.UnixConn)
	if !ok {
		return initScore, nil
	}
	pid, err := peerPID(local)
	if err != nil || pid == 0 {
		return initScore, err
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if caps, ok := strings.CutPrefix(line, "CapEff:"); ok {
			set, err := strconv.ParseUint(strings.TrimSpace(caps), 16, 64)
			if err == nil && set&(1<<unix.CAP_SYS_RESOURCE) == 0 {
				return 0, nil
			}
		}
	}
	return initScore, nil
}
