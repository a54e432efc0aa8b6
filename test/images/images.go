// Package images builds the images that tests and the demo run, on the engine
// itself and without any registry: a file system packed as a tar archive is
// imported as an image of one layer.
//
// Ensure is cheap when the images are there and current, so every test that
// needs one may call it.
package images

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
)

// The images. All but Demo are removed by Remove.
const (
	// Prog holds /prog and /bin/prog (see test/images/prog), no shell.
	Prog = "ecs-test/prog:1"
	// Entry is Prog with an entry point, a user, a directory and variables of
	// its own: ENTRYPOINT /prog, CMD echo from cmd, USER nobody, WORKDIR
	// /srv, ENV FROM_IMAGE=yes.
	Entry = "ecs-test/entry:1"
	// Busybox is Debian's static busybox with a link for every applet.
	Busybox = "ecs-test/busybox:1"
	// Demo is what Busybox is, for the demo.
	Demo = "ecs-demo/busybox:1"
)

const (
	// contentLabel holds a hash of what an image was made from.
	contentLabel = "ecs.test.content"
	lockPause    = 20 * time.Millisecond
)

// spec is how one image is made.
type spec struct {
	name    string
	changes []string
	files   func(ctx context.Context) ([]entry, error)
}

// searchPath is every image's.
const searchPath = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func testSpecs() []spec {
	return []spec{
		{Prog, []string{searchPath}, progFiles},
		{Entry, []string{searchPath, "ENV FROM_IMAGE=yes", `ENTRYPOINT ["/prog"]`, `CMD ["echo","from","cmd"]`,
			"USER nobody", "WORKDIR /srv"}, progFiles},
		busybox(Busybox),
	}
}

func busybox(name string) spec {
	return spec{name, []string{searchPath, `CMD ["sh"]`}, busyboxFiles}
}

// Ensure builds the test images that are missing or out of date. Processes
// that call it at the same time on one machine take turns.
func Ensure(ctx context.Context, c *client.Client) error { return ensure(ctx, c, testSpecs()) }

// EnsureDemo does the same for the demo's image.
func EnsureDemo(ctx context.Context, c *client.Client) error {
	return ensure(ctx, c, []spec{busybox(Demo)})
}

// Remove removes the test images and the demo's, where they are there.
func Remove(ctx context.Context, c *client.Client) error {
	for _, name := range []string{Prog, Entry, Busybox, Demo} {
		_, err := c.ImageRemove(ctx, name, image.RemoveOptions{PruneChildren: true})
		if err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove image %s: %w", name, err)
		}
	}
	return nil
}

func ensure(ctx context.Context, c *client.Client, specs []spec) error {
	unlock, err := lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	for _, s := range specs {
		if err := build(ctx, c, s); err != nil {
			return fmt.Errorf("build image %s: %w", s.name, err)
		}
	}
	return nil
}

func build(ctx context.Context, c *client.Client, s spec) error {
	files, err := s.files(ctx)
	if err != nil {
		return err
	}
	archive, err := pack(files)
	if err != nil {
		return err
	}
	sum := sha256.New()
	sum.Write(archive)
	fmt.Fprintf(sum, "%q", s.changes)
	content := hex.EncodeToString(sum.Sum(nil))

	old, err := c.ImageInspect(ctx, s.name)
	switch {
	case err == nil && old.Config != nil && old.Config.Labels[contentLabel] == content:
		return nil
	case err != nil && !errdefs.IsNotFound(err):
		return err
	}
	answer, err := c.ImageImport(ctx,
		image.ImportSource{Source: bytes.NewReader(archive), SourceName: "-"}, s.name,
		image.ImportOptions{Changes: append(s.changes, "LABEL "+contentLabel+"="+content), Message: "built for tests"})
	if err != nil {
		return err
	}
	defer answer.Close()
	if _, err := io.Copy(io.Discard, answer); err != nil {
		return err
	}
	if old.ID != "" {
		// The one it replaces has lost its name; in use by a test, it stays.
		_, _ = c.ImageRemove(ctx, old.ID, image.RemoveOptions{})
	}
	return nil
}

// progFiles compiles test/images/prog. It needs the go command and a working
// directory inside this module, which is where go test runs.
func progFiles(ctx context.Context) ([]entry, error) {
	dir, err := os.MkdirTemp("", "ecs-prog-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "prog")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out, "ecs/test/images/prog")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOFLAGS=")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compile prog: %w: %s", err, strings.TrimSpace(string(text)))
	}
	binary, err := os.ReadFile(out)
	if err != nil {
		return nil, err
	}
	return append(base(), file("bin/prog", 0o755, binary), link("prog", "bin/prog"),
		file("bin/plain", 0o644, []byte("not executable\n"))), nil
}

// busyboxFiles takes the machine's own static busybox and links its applets.
func busyboxFiles(ctx context.Context) ([]entry, error) {
	const hint = "busybox is needed; run: apt-get install -y busybox-static"
	binary, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", hint, err)
	}
	list, err := exec.CommandContext(ctx, "/bin/busybox", "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", hint, err)
	}
	files := append(base(), file("bin/busybox", 0o755, binary))
	for _, applet := range strings.Fields(string(list)) {
		if applet != "busybox" {
			files = append(files, link("bin/"+applet, "/bin/busybox"))
		}
	}
	return files, nil
}

// lock keeps other processes of this machine out. It is an abstract socket: no
// file, and the kernel takes it back when its holder dies.
func lock(ctx context.Context) (unlock func(), err error) {
	for {
		held, err := net.ListenUnix("unix", &net.UnixAddr{Name: "@ecs-test-images", Net: "unix"})
		if err == nil {
			return func() { held.Close() }, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("lock the building of images: %w", err)
		}
		select {
		case <-time.After(lockPause):
		case <-ctx.Done():
			return nil, fmt.Errorf("lock the building of images: %w", ctx.Err())
		}
	}
}
