package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ecs/internal/daemon"
	"ecs/internal/fence"
)

// This test binary is also ecs-fence.
func TestMain(m *testing.M) {
	if os.Getenv("ECS_FENCE_TEST") != "" {
		main()
	}
	os.Exit(m.Run())
}

func TestSettingsAreChecked(t *testing.T) {
	var out bytes.Buffer
	if status := program().Main([]string{"--check-config"}, &out, &out, nil); status != daemon.ExitOK {
		t.Errorf("defaults: got status %d: %s", status, out.String())
	}
	status := program().Main([]string{"--socket", "s", "--state-dir", "", "--check-config"}, &out, &out, nil)
	if status != daemon.ExitUsage || !strings.Contains(out.String(), "--socket") || !strings.Contains(out.String(), "--state-dir") {
		t.Errorf("got status %d: %s, want both paths refused", status, out.String())
	}
}

func TestOrdinaryUserIsToldWhatToDo(t *testing.T) {
	dir := t.TempDir()
	o := &options{socket: filepath.Join(dir, "s"), stateDir: filepath.Join(dir, "state"), uid: func() int { return 1000 }}
	if err := o.run(context.Background(), slog.New(slog.DiscardHandler), nil); !errors.Is(err, errNotRoot) {
		t.Errorf("got %v, want %v", err, errNotRoot)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("got %v made, want nothing", left)
	}
}

func TestFenceServesUntilItIsAskedToEnd(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a fence needs root")
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "--socket", filepath.Join(dir, "s"), "--state-dir", filepath.Join(dir, "state"))
	cmd.Env = append(os.Environ(), "ECS_FENCE_TEST=1")
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	client := fence.New(filepath.Join(dir, "s"), slog.New(slog.DiscardHandler))
	ended := make(chan error, 1)
	life, leave := context.WithCancel(ctx)
	go func() { ended <- client.Run(life) }()
	if held, err := client.List(ctx); err != nil || len(held) != 0 || client.Healthy() != nil {
		t.Errorf("got %v, %v, %v, want an empty, healthy fence", held, err, client.Healthy())
	}
	leave()
	<-ended
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("got %v, want a good end:\n%s", err, said.String())
	}
}
