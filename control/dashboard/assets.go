package dashboard

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"

	"ecs/proto/api"
)

//go:embed assets
var assetFiles embed.FS

//go:embed templates
var templateFiles embed.FS

// assets are the files that pages ask for, by name. Their address holds a hash of
// all of them, so that a browser keeps them until one changes.
type assets struct {
	base  string // with the hash
	hash  string
	files map[string]asset
}

type asset struct {
	kind string
	body string
}

func loadAssets(base string) (*assets, error) {
	a := &assets{files: make(map[string]asset)}
	sum := sha256.New()
	// Walked in the order of names, so that every node has the same hash.
	err := fs.WalkDir(assetFiles, "assets", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		body, err := assetFiles.ReadFile(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(sum, "%s %d\n%s", name, len(body), body)
		a.files[path.Base(name)] = asset{kindOf(name), string(body)}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read assets: %w", err)
	}
	a.hash = hex.EncodeToString(sum.Sum(nil)[:8])
	a.base = base + a.hash + "/"
	return a, nil
}

// kindOf does not ask the machine, which may know no scripts.
func kindOf(name string) string {
	switch path.Ext(name) {
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	}
	return mime.TypeByExtension(path.Ext(name))
}

// serve gives a file. During an upgrade a page of another version may ask: it gets
// this one's, and does not keep it.
func (a *assets) serve(w http.ResponseWriter, r *http.Request, name string) {
	hash, name, _ := strings.Cut(name, "/")
	file, ok := a.files[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	if hash == a.hash {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	w.Header().Set("Cross-Origin-Resource-Policy", "same-origin")
	w.Header().Set("Content-Type", file.kind)
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(file.body))
}

func loadTemplates() (*template.Template, error) {
	return template.New("").Funcs(template.FuncMap{
		"plain": plain, "size": size, "moment": moment, "short": short, "ms": milliseconds, "shell": shell, "count": count, "cores": cores, "clock": clock,
		"problem": func(c api.Code) string { return "/docs#" + string(c) },
	}).ParseFS(templateFiles, "templates/*.html")
}
