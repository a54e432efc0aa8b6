package agent

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/armon/go-metrics"

	"ecs/agent/journal"
	"ecs/agent/runtime"
)

const (
	probeEvery   = 5 * time.Second
	probeTimeout = 5 * time.Second
	// firstProbeTimeout leaves an engine time to set up what it will need.
	firstProbeTimeout = 30 * time.Second
	// slowProbes is how many probes in a row may time out before the node is
	// unfit: one may, on a machine that is starting many containers.
	slowProbes = 2
	// imagesEvery bounds how stale the list of images is that placement
	// prefers nodes by; imagesPause is the least time between two looks.
	imagesEvery = 30 * time.Second
	imagesPause = 5 * time.Second
	maxImages   = 512
)

// health watches the engine: whether it answers, and which images it holds.
// Its methods are safe for concurrent use.
type health struct {
	engine  runtime.Runtime
	images  Images
	journal *journal.Journal
	outer   func() string // Config.Unfit; may be nil
	log     *slog.Logger
	metrics *metrics.Metrics

	removed func(refs []string) // told of images that are gone; may be nil

	changed chan struct{} // one slot: say it in a heartbeat now
	missing chan struct{} // one slot: an image came that the list does not have

	mu struct {
		sync.Mutex
		engine  runtime.Engine
		unfit   string // why the engine can run nothing
		journal string // why nothing can be written down
		outer   string // what outer said first, while it says something
		leaving bool
		images  []string
		version int // of images; 0 before the first look
	}
}

func newHealth(cfg *Config, j *journal.Journal) *health {
	return &health{engine: cfg.Runtime, images: cfg.Images, journal: j, outer: cfg.Unfit, log: cfg.Log, metrics: cfg.Metrics,
		changed: make(chan struct{}, 1), missing: make(chan struct{}, 1)}
}

// run probes until ctx ends.
func (h *health) run(ctx context.Context) {
	probe, images := time.NewTimer(probeEvery), time.NewTimer(0)
	defer probe.Stop()
	defer images.Stop()
	var looked time.Time
	slow := 0
	for {
		select {
		case <-probe.C:
			slow = h.probe(ctx, slow)
			h.checkJournal()
			probe.Reset(probeEvery)
		case <-h.missing:
			images.Reset(max(0, imagesPause-time.Since(looked)))
		case <-images.C:
			h.look(ctx)
			looked = time.Now()
			images.Reset(imagesEvery)
		case <-ctx.Done():
			return
		}
	}
}

// probe asks the engine once. slow counts the probes in a row that timed out.
func (h *health) probe(ctx context.Context, slow int) int {
	limited, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	engine, err := h.engine.Probe(limited)
	switch {
	case ctx.Err() != nil:
		return slow
	case err == nil:
		h.fit(engine)
		return 0
	case limited.Err() != nil:
		slow++
		if slow >= slowProbes {
			h.setUnfit(fmt.Sprintf("the container engine does not answer within %s", probeTimeout))
		}
		return slow
	default:
		h.setUnfit("the container engine does not work: " + err.Error())
		return slow
	}
}

func (h *health) fit(engine runtime.Engine) {
	h.mu.Lock()
	h.mu.engine = engine
	h.mu.Unlock()
	h.setUnfit("")
}

func (h *health) setUnfit(why string) {
	h.mu.Lock()
	before := h.mu.unfit
	// The first word stands until it is over: engines vary theirs, and every
	// change is committed.
	if changed := (before == "") != (why == ""); !changed {
		h.mu.Unlock()
		return
	}
	h.mu.unfit = why
	h.mu.Unlock()
	if why == "" {
		h.log.Info("the container engine works again")
	} else {
		h.log.Warn("unfit", "why", why)
	}
	poke(h.changed)
}

// checkJournal finds out whether attempts can be begun.
func (h *health) checkJournal() {
	why := ""
	if err := h.journal.Check(); err != nil {
		why = "the agent's journal does not work: " + err.Error()
	}
	h.mu.Lock()
	changed := (h.mu.journal == "") != (why == "")
	if changed {
		h.mu.journal = why
	}
	h.mu.Unlock()
	if changed {
		h.log.Warn("the agent's journal", "unfit", why)
		poke(h.changed)
	}
}

// leave makes the node take nothing new.
func (h *health) leave() {
	h.mu.Lock()
	h.mu.leaving = true
	h.mu.Unlock()
	poke(h.changed)
}

// look lists the images.
func (h *health) look(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	list := h.images.Present(limited)
	if limited.Err() != nil {
		return // what was found may not be all
	}
	list = slices.Clone(list)
	slices.Sort(list)
	list = slices.Compact(list)
	list = list[:min(len(list), maxImages)]
	h.mu.Lock()
	same := h.mu.version > 0 && slices.Equal(list, h.mu.images)
	var gone []string
	if !same {
		for _, ref := range h.mu.images {
			// What the list has no more room for need not be gone.
			if _, found := slices.BinarySearch(list, ref); !found && len(list) < maxImages {
				gone = append(gone, ref)
			}
		}
		h.mu.images, h.mu.version = list, h.mu.version+1
	}
	h.mu.Unlock()
	if !same {
		poke(h.changed)
	}
	if len(gone) > 0 && h.removed != nil {
		h.removed(gone)
	}
}

// used says that an attempt runs the image: if the list lacks it, it is new.
func (h *health) used(ref string) {
	h.mu.Lock()
	_, known := slices.BinarySearch(h.mu.images, ref)
	full := len(h.mu.images) == maxImages
	h.mu.Unlock()
	if !known && !full {
		poke(h.missing)
	}
}

// present is what a heartbeat tells.
type present struct {
	unfit   string
	images  []string // not to be changed
	version int
}

func (h *health) present() present {
	outer := ""
	if h.outer != nil {
		outer = h.outer()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if outer == "" || h.mu.outer == "" {
		h.mu.outer = outer // else the first word stands
	}
	p := present{unfit: cmp.Or(h.mu.unfit, h.mu.outer, h.mu.journal), images: h.mu.images, version: h.mu.version}
	if h.mu.leaving {
		p.unfit = "the node is leaving"
	}
	return p
}

func (h *health) description() runtime.Engine {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.engine
}

// poke leaves word in a channel of one slot; whoever left it first will do.
func poke(slot chan<- struct{}) {
	select {
	case slot <- struct{}{}:
	default:
	}
}
