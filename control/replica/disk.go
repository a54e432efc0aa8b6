package replica

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	probeEvery = time.Second
	// hungAfter is how long a write to the disk may take. Raft sends heartbeats
	// beside its writes, so a leader with a hung disk stays leader and answers
	// nobody, until its process ends.
	hungAfter = 5 * time.Second
	probeSize = 4 << 10
)

// errHung says that a write to the disk does not come back. Its goroutine can
// be stopped by nothing.
var errHung = errors.New("the disk does not answer")

// startWatchdog starts the disk's watchdog, when there is a disk.
func (n *Node) startWatchdog(ctx context.Context, loops *sync.WaitGroup) {
	probe := n.cfg.probe
	var finish func()
	if probe == nil {
		if n.cfg.Stores != nil {
			return
		}
		p := &diskProbe{path: filepath.Join(n.cfg.Dir, "probe")}
		probe, finish = p.write, p.close
	}
	loops.Go(func() {
		n.watchDisk(ctx, probe)
		if finish != nil {
			finish()
		}
	})
}

// watchDisk probes the disk until ctx ends, or until it fails, which ends the
// node. A probe that hangs is left behind.
func (n *Node) watchDisk(ctx context.Context, probe func() error) {
	every := time.NewTimer(probeEvery)
	defer every.Stop()
	for {
		start := time.Now()
		done := make(chan error, 1)
		go func() { done <- probe() }()
		hung := time.NewTimer(hungAfter)
		select {
		case err := <-done:
			hung.Stop()
			n.cfg.Metrics.MeasureSince([]string{"replica", "disk", "probe"}, start)
			if err != nil {
				n.fail(fmt.Errorf("write to the disk: %w", err))
				return
			}
		case <-hung.C:
			n.fail(fmt.Errorf("%w for %v", errHung, hungAfter))
			return
		}
		every.Reset(probeEvery)
		select {
		case <-every.C:
		case <-ctx.Done():
			return
		}
	}
}

// diskProbe writes a file anew, so that a full disk shows too.
type diskProbe struct {
	path string
	file *os.File
}

func (p *diskProbe) write() (err error) {
	if p.file == nil {
		if p.file, err = os.OpenFile(p.path, os.O_CREATE|os.O_WRONLY, 0o600); err != nil {
			return err
		}
	}
	if err := p.file.Truncate(0); err != nil {
		return err
	}
	if _, err := p.file.WriteAt(make([]byte, probeSize), 0); err != nil {
		return err
	}
	return p.file.Sync()
}

func (p *diskProbe) close() {
	if p.file != nil {
		_ = p.file.Close() // what it held does not matter
	}
}
