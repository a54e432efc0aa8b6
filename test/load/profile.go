package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"ecs/internal/devcluster"
)

// fleetPort is where the agents' process serves its profiles, if any are taken.
const fleetPort = "127.0.0.1:18606"

func (o options) fleetDebug() string {
	if o.profiles == "" {
		return ""
	}
	return fleetPort
}

// profiling takes CPU profiles of every process of a control plane under load.
type profiling struct {
	dir     string
	sources map[string]string // URLs by the file's name
}

func (o options) profile(status *devcluster.Status) profiling {
	p := profiling{dir: o.profiles, sources: map[string]string{"agents": "http://" + fleetPort + "/debug/pprof/"}}
	for _, n := range status.Nodes {
		name := n.Name
		if n.Leader {
			name += "-leader"
		}
		p.sources[name] = n.Debug
	}
	return p
}

// take profiles for some seconds with 512 tasks in flight.
func (p profiling) take(ctx context.Context, c *caller) error {
	if p.dir == "" {
		return nil
	}
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return err
	}
	const seconds = 8
	var all sync.WaitGroup
	for name, url := range p.sources {
		all.Go(func() {
			for kind, query := range map[string]string{"profile": fmt.Sprintf("?seconds=%d", seconds), "allocs": fmt.Sprintf("?seconds=%d", seconds)} {
				all.Go(func() {
					if err := download(ctx, url+kind+query, filepath.Join(p.dir, name+"."+kind)); err != nil {
						fmt.Fprintln(os.Stderr, "bench: profile:", err)
					}
				})
			}
		})
	}
	_, _, err := c.closed(ctx, 512, (seconds+1)*time.Second)
	all.Wait()
	return err
}

func download(ctx context.Context, url, file string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(f, resp.Body)
	return err
}
