package docker

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"ecs/internal/initwire"
	"ecs/internal/task"
)

const (
	// binaryPrefix begins the names of the copies of ecs-init, which end in a
	// hash of what is in them.
	binaryPrefix = "init-"
	// binaryMode lets anybody execute it and nobody read or change it.
	binaryMode = 0o711
	recordEnd  = ".json"
	// offlineName is the directory of what offline names.
	offlineName = "offline"
)

// offline are the files in /etc of a container without network.
var offline = map[string]string{
	"hostname":    hostname + "\n",
	"resolv.conf": "# no network\n",
	"hosts": `127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::0	ip6-localnet
ff00::0	ip6-mcastprefix
ff02::1	ip6-allnodes
ff02::2	ip6-allrouters
`,
}

var errNoHomes = errors.New("no directory is set for what containers need of the host")

// homes are the directories of this agent's attempts on the host: what is
// mounted in their containers, and beside each a record of its attempt. They
// outlive the process, so that the next one finds its attempts again.
type homes struct {
	root, binary string

	mu        sync.Mutex
	installed string      // the copy, or empty
	of        fs.FileInfo // what it was made of
}

// install puts the program that is PID 1 where homes can link to it, and gives
// its path. A copy is never changed: containers run it.
func (h *homes) install() (string, error) {
	if h.root == "" {
		return "", errNoHomes
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	info, err := os.Stat(h.binary)
	if err != nil {
		return "", fmt.Errorf("find the program that is PID 1 of containers: %w", err)
	}
	if _, gone := os.Stat(h.installed); gone == nil && os.SameFile(info, h.of) &&
		info.ModTime().Equal(h.of.ModTime()) && info.Size() == h.of.Size() {
		return h.installed, nil
	}
	path, err := h.copy()
	if err != nil {
		return "", fmt.Errorf("install the program that is PID 1 of containers: %w", err)
	}
	h.installed, h.of = path, info
	return path, nil
}

func (h *homes) copy() (string, error) {
	text, err := os.ReadFile(h.binary)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(h.root, 0o700); err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	name := binaryPrefix + hex.EncodeToString(sum[:8])
	path := filepath.Join(h.root, name)
	if _, err = os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		err = writeWhole(path, text, binaryMode)
	}
	if err != nil {
		return "", err
	}
	return path, h.removeOthers(name)
}

// offline gives the directory of the files that containers without network have in
// /etc. The engine gives some or all of them to those of its network "none".
func (h *homes) offline() (string, error) {
	if h.root == "" {
		return "", errNoHomes
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	path := filepath.Join(h.root, offlineName)
	err := os.MkdirAll(path, 0o755)
	for name, want := range offline {
		file := filepath.Join(path, name)
		if there, gone := os.ReadFile(file); gone != nil || string(there) != want {
			err = errors.Join(err, writeWhole(file, []byte(want), 0o644))
		}
	}
	if err != nil {
		return "", fmt.Errorf("write what containers without network have in /etc: %w", err)
	}
	return path, nil
}

// removeOthers removes copies of earlier versions. What runs keeps its link.
func (h *homes) removeOthers(name string) error {
	old, err := filepath.Glob(filepath.Join(h.root, binaryPrefix+"*"))
	for _, path := range old {
		if filepath.Base(path) != name {
			err = errors.Join(err, os.Remove(path))
		}
	}
	return err
}

// writeWhole makes a file that is either there with all of its content or not.
func writeWhole(path string, content []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(mode), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// home is one attempt's directory.
type home struct{ path string }

// record is what the next process has to know of an attempt that got its order.
type record struct {
	Container string `json:"container"` // the engine's id
	Nonce     string `json:"nonce"`
	Cgroup    string `json:"cgroup"`
}

// build makes the directory of an attempt, with the program that is PID 1.
func (h *homes) build(t task.Token, binary string) (home, error) {
	if err := h.forget(t); err != nil {
		return home{}, fmt.Errorf("forget an earlier container: %w", err)
	}
	path, err := os.MkdirTemp(h.root, homeName(t))
	if err != nil {
		return home{}, fmt.Errorf("make the attempt's directory: %w", err)
	}
	err = errors.Join(os.Chmod(path, 0o711), os.Link(binary, filepath.Join(path, initwire.Binary)))
	if err != nil {
		return home{}, errors.Join(fmt.Errorf("make the attempt's directory: %w", err), os.RemoveAll(path))
	}
	return home{path}, nil
}

// rename gives the directory to an attempt. What is mounted of it stays.
func (h *homes) rename(from home, t task.Token) (home, error) {
	if err := h.forget(t); err != nil {
		return home{}, fmt.Errorf("forget an earlier container: %w", err)
	}
	// What tells it from others stays.
	to := filepath.Join(h.root, homeName(t)+filepath.Ext(from.path)[1:])
	if err := os.Rename(from.path, to); err != nil {
		return home{}, fmt.Errorf("give the directory to the attempt: %w", err)
	}
	return home{to}, nil
}

// renamed are the names that the directory may have been given since.
func (h *homes) renamed(from string) (found []home) {
	entries, _ := os.ReadDir(h.root) // nobody's any more, or another machine's
	for _, e := range entries {
		path := filepath.Join(h.root, e.Name())
		if _, ok := tokenOfHome(e.Name()); ok && path != from && filepath.Ext(path) == filepath.Ext(from) {
			found = append(found, home{path})
		}
	}
	return found
}

// owners tells by their records which containers are which attempt's. A record
// that can't be read, as a power cut leaves it, is an error only where keep claims
// its attempt: nobody asks for the others.
func (h *homes) owners(keep func(task.Token) bool) (map[string]task.Token, error) {
	entries, err := os.ReadDir(h.root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	found := map[string]task.Token{}
	for _, e := range entries {
		t, ok := tokenOfHome(e.Name())
		if !ok || !strings.HasSuffix(e.Name(), recordEnd) || !keep(t) {
			continue
		}
		r, gone := readRecord(filepath.Join(h.root, e.Name()))
		if gone == nil {
			found[r.Container] = t
		} else if !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("record %s: %w", e.Name(), gone))
		}
	}
	return found, err
}

func readRecord(path string) (r record, err error) {
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	return r, err
}

// homeName begins the name of an attempt's directory. What follows tells it
// from another of the same attempt.
func homeName(t task.Token) string { return fmt.Sprintf("%s.%d.%d.", t.Task, t.Attempt, t.Epoch) }

// tokenOfHome reads a name that build made, of a directory or its record.
func tokenOfHome(name string) (t task.Token, ok bool) {
	var part [3]string // number, epoch, attempt: an id may have dots of its own
	name = strings.TrimSuffix(name, recordEnd)
	for i := range part {
		dot := strings.LastIndexByte(name, '.')
		if dot <= 0 {
			return t, false
		}
		name, part[i] = name[:dot], name[dot+1:]
	}
	attempt, err1 := strconv.Atoi(part[2])
	epoch, err2 := strconv.ParseUint(part[1], 10, 64)
	return task.Token{Task: task.ID(name), Attempt: attempt, Epoch: epoch}, err1 == nil && err2 == nil
}

// find gives the record of an attempt that got its order.
func (h *homes) find(t task.Token) (home, record, error) {
	names, err := h.records(t)
	if err != nil || len(names) == 0 {
		return home{}, record{}, errors.Join(err, fs.ErrNotExist)
	}
	found := home{strings.TrimSuffix(names[0], recordEnd)}
	r, err := readRecord(names[0])
	return found, r, err
}

// forget removes the records of containers that a new one of the same attempt
// replaces.
func (h *homes) forget(t task.Token) error {
	names, err := h.records(t)
	for _, name := range names {
		if gone := os.Remove(name); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}
	return err
}

func (h *homes) records(t task.Token) ([]string, error) {
	entries, err := os.ReadDir(h.root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var found []string
	for _, e := range entries {
		if of, ok := tokenOfHome(e.Name()); ok && of == t && strings.HasSuffix(e.Name(), recordEnd) {
			found = append(found, filepath.Join(h.root, e.Name()))
		}
	}
	return found, err
}

// sweep removes everything of the attempts that keep does not claim.
func (h *homes) sweep(keep func(task.Token) bool) error {
	if h.root == "" {
		return nil
	}
	entries, err := os.ReadDir(h.root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if t, ok := tokenOfHome(e.Name()); ok && !keep(t) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(h.root, e.Name())))
		}
	}
	return err
}

// write keeps the record for the next process.
func (h home) write(r record) error {
	text, err := json.Marshal(r)
	if err == nil {
		err = writeWhole(h.path+recordEnd, text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write down the container: %w", err)
	}
	return nil
}

// remove removes the record and the directory. It is idempotent.
func (h home) remove() error {
	if h.path == "" {
		return nil
	}
	err := os.Remove(h.path + recordEnd)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, os.RemoveAll(h.path))
}
