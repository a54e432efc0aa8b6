package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"ecs/internal/clusterfiles"
)

// firstKeyFile, in the data directory, holds the cluster's first admin key until
// its operator has taken it.
const firstKeyFile = "first-admin-key"

// firstKey keeps the first admin key in a file: a log is read by many.
type firstKey struct {
	path string
	log  *slog.Logger
}

// Draw implements control.FirstKey.
func (f *firstKey) Draw() (key, secret string, err error) {
	if key, secret, err = f.read(); err != nil || key != "" {
		return key, secret, err
	}
	drawn := clusterfiles.NewCredentials()
	return drawn.Key, drawn.Secret, clusterfiles.WriteSecret(f.path, drawn.String()+"\n")
}

// Kept implements control.FirstKey.
func (f *firstKey) Kept() (key string, err error) {
	key, _, err = f.read()
	return key, err
}

// read gives what is in the file; empty: there is none.
func (f *firstKey) read() (key, secret string, err error) {
	text, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", "", nil
	}
	if err != nil {
		return "", "", err
	}
	key, secret, ok := strings.Cut(strings.TrimSpace(string(text)), ":")
	if !ok || key == "" || secret == "" {
		return "", "", fmt.Errorf("%s holds no key:secret; remove it to have new ones drawn", f.path)
	}
	return key, secret, nil
}

// Tell implements control.FirstKey.
func (f *firstKey) Tell() {
	f.log.Warn("first admin key made: it is in this file as key:secret; keep it elsewhere and remove the file", "path", f.path)
}

// Drop implements control.FirstKey.
func (f *firstKey) Drop() error {
	if err := os.Remove(f.path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil // its operator was faster
}

func firstKeyIn(dir string, log *slog.Logger) *firstKey {
	return &firstKey{path: filepath.Join(dir, firstKeyFile), log: log}
}
