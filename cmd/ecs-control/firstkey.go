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
	text, err := os.ReadFile(f.path)
	if err == nil {
		key, secret, ok := strings.Cut(strings.TrimSpace(string(text)), ":")
		if !ok || key == "" || secret == "" {
			return "", "", fmt.Errorf("%s holds no key:secret; remove it to have new ones drawn", f.path)
		}
		return key, secret, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", "", err
	}
	drawn := clusterfiles.NewCredentials()
	return drawn.Key, drawn.Secret, clusterfiles.WriteSecret(f.path, drawn.String()+"\n")
}

// Tell implements control.FirstKey.
func (f *firstKey) Tell() {
	f.log.Warn("first admin key made: it is in this file as key:secret; keep it elsewhere and remove the file", "path", f.path)
}

// Drop implements control.FirstKey.
func (f *firstKey) Drop() error { return os.Remove(f.path) }

func firstKeyIn(dir string, log *slog.Logger) *firstKey {
	return &firstKey{path: filepath.Join(dir, firstKeyFile), log: log}
}
