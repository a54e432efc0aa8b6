package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/go-sockaddr"
	"golang.org/x/sys/unix"
)

// DataDir is a node's own directory, held by one process at a time.
type DataDir struct {
	path string
	lock *os.File
}

// OpenDataDir creates the directory where needed, takes it for this process
// and ties it to the node's id: the first id to open it stays its only one, so
// that a node never wakes up with the state of another.
func OpenDataDir(path, id string) (*DataDir, error) {
	d, err := takeDataDir(path)
	if err != nil {
		return nil, err
	}
	if err := d.claim(id); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// takeDataDir is OpenDataDir without an id.
func takeDataDir(path string) (*DataDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the data directory: %w", err)
	}
	d := &DataDir{path: path, lock: lock}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("take the data directory %s: another process has it: %w", path, err), d.Close())
	}
	return d, nil
}

func (d *DataDir) claim(id string) error {
	file := filepath.Join(d.path, "node-id")
	kept, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return writeSynced(file, id+"\n")
	}
	if err != nil {
		return fmt.Errorf("read the node's id: %w", err)
	}
	if got := strings.TrimSpace(string(kept)); got != id {
		return fmt.Errorf("the data directory %s is that of node %s, but the certificate is for %s", d.path, got, id)
	}
	return nil
}

// writeSynced replaces a file so that a crash leaves the old or the new one.
func writeSynced(file, text string) error {
	tmp, err := os.OpenFile(file+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = tmp.WriteString(text)
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), file)
}

// Path names a file in the directory.
func (d *DataDir) Path(name string) string { return filepath.Join(d.path, name) }

// Close gives the directory up.
func (d *DataDir) Close() error { return d.lock.Close() }

// Advertise gives the host:port that others use to reach a listener at listen:
// with the given host if there is one, else with the one listened on, else with
// the machine's own private address.
func Advertise(listen, host string) (string, error) {
	bound, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", err
	}
	if ip := net.ParseIP(bound); host == "" && bound != "" && (ip == nil || !ip.IsUnspecified()) {
		host = bound
	}
	if host == "" {
		if host, err = sockaddr.GetPrivateIP(); err != nil {
			return "", fmt.Errorf("find this machine's address: %w", err)
		}
	}
	if host == "" {
		return "", errors.New("this machine has no private address; give one with --advertise")
	}
	return net.JoinHostPort(host, port), nil
}

// Loopback reports whether only this machine reaches a listener at listen.
func Loopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
