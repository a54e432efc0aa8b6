package images

import (
	"context"
	"log/slog"
	"testing"

	"ecs/agent/runtime"
	"ecs/internal/telemetry"
)

// What Ensure itself costs a task whose image is here, the engine's own answer
// apart.
func BenchmarkEnsureGift(b *testing.B) {
	s := newStore()
	s.images["docker.io/library/mine:1"] = runtime.StoredImage{ID: "sha256:abc"}
	i := New(Config{Store: s, Log: slog.New(slog.DiscardHandler), Metrics: telemetry.Discard()})
	for b.Loop() {
		if _, err := i.Ensure(context.Background(), Request{Ref: "mine:1", Owner: "o"}); err != nil {
			b.Fatal(err)
		}
	}
}
