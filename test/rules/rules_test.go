// Package rules keeps the rules of the house that a compiler does not: who may
// import whom, and what the pure core may not do. See DESIGN.md section 3 and
// the architecture section of README.md.
package rules

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// pkg is what `go list` says of a package.
type pkg struct {
	ImportPath   string
	Name         string
	Dir          string
	GoFiles      []string
	Imports      []string
	Deps         []string
	TestImports  []string
	XTestImports []string
}

func list(t *testing.T) map[string]pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Name,Dir,GoFiles,Imports,Deps", "ecs/...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	all := make(map[string]pkg)
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("read go list: %v", err)
		}
		all[p.ImportPath] = p
	}
	if len(all) < 20 {
		t.Fatalf("go list found %d packages, want all of them", len(all))
	}
	return all
}

func TestImportsPointInward(t *testing.T) {
	all := list(t)
	never := func(from string, to ...string) {
		t.Helper()
		p, ok := all[from]
		if !ok {
			t.Errorf("no package %s: the rule names something that is gone", from)
		}
		for _, dep := range p.Deps {
			for _, bad := range to {
				if dep == bad || strings.HasPrefix(dep, bad+"/") {
					t.Errorf("%s depends on %s", from, dep)
				}
			}
		}
	}
	siblings := []string{"ecs/control/api", "ecs/control/dispatch", "ecs/control/place", "ecs/control/replica"}
	for _, from := range siblings {
		for _, to := range siblings {
			if from != to {
				never(from, to)
			}
		}
		never(from, "ecs/agent")
	}
	never("ecs/control", "ecs/agent")
	// What a page shows the API has answered: there is no second way to the record.
	never("ecs/control/dashboard", "ecs/control", "ecs/internal/task", "ecs/internal/telemetry", "google.golang.org/grpc")
	never("ecs/agent", "ecs/control")
	network := []string{"net/http", "google.golang.org/grpc", "log/slog", "github.com/hashicorp/raft"}
	never("ecs/control/state", network...)
	never("ecs/control/place", network...)
	never("ecs/internal/taskwire", network...)

	for _, pure := range []string{"ecs/internal/task", "ecs/internal/access", "ecs/proto/api"} {
		for _, dep := range all[pure].Deps {
			if strings.Contains(strings.Split(dep, "/")[0], ".") || (strings.HasPrefix(dep, "ecs/") && pure != "ecs/proto/api") {
				t.Errorf("%s depends on %s, want the standard library only", pure, dep)
			}
		}
	}
}

func TestEachLibraryHasOneImporter(t *testing.T) {
	only := map[string][]string{
		// The benchmark sets the library alone beside what is made of it.
		"github.com/hashicorp/raft":           {"ecs/control/replica", "ecs/test/load"},
		"github.com/hashicorp/raft-wal":       {"ecs/control/replica", "ecs/test/load"},
		"github.com/hashicorp/raft-autopilot": {"ecs/control/replica"},
		"github.com/hashicorp/memberlist":     {"ecs/internal/gossip"},
		// devcluster removes what a cluster made; test/images makes images.
		"github.com/docker/docker/client": {"ecs/agent/runtime/docker", "ecs/cmd/ecs-agent", "ecs/internal/devcluster", "ecs/test/"},
	}
	for path, p := range list(t) {
		for _, imported := range p.Imports {
			if allowed, limited := only[imported]; limited && !slices.ContainsFunc(allowed, func(a string) bool {
				return path == a || strings.HasSuffix(a, "/") && strings.HasPrefix(path, a)
			}) {
				t.Errorf("%s imports %s, only %v may", path, imported, allowed)
			}
		}
	}
}

// TestPureCoreReadsNoClock parses the packages that decide: what they answer
// must depend on their arguments alone, on every replica.
func TestPureCoreReadsNoClock(t *testing.T) {
	all := list(t)
	forbiddenImport := []string{"net", "os", "log", "log/slog", "math/rand", "math/rand/v2", "crypto/rand", "sync/atomic"}
	forbiddenCall := map[string][]string{"time": {"Now", "Since", "Until", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick", "Sleep"}}
	for _, path := range []string{"ecs/internal/task", "ecs/internal/access", "ecs/internal/taskwire", "ecs/control/state", "ecs/control/place"} {
		for _, name := range all[path].GoFiles {
			file := filepath.Join(all[path].Dir, name)
			tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, im := range tree.Imports {
				imported := strings.Trim(im.Path.Value, `"`)
				// The store publishes its snapshot by one atomic store.
				if path == "ecs/control/state" && imported == "sync/atomic" {
					continue
				}
				if slices.Contains(forbiddenImport, imported) {
					t.Errorf("%s imports %s", file, imported)
				}
			}
			ast.Inspect(tree, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GoStmt:
					t.Errorf("%s starts a goroutine", file)
				case *ast.SelectorExpr:
					if x, ok := n.X.(*ast.Ident); ok && slices.Contains(forbiddenCall[x.Name], n.Sel.Name) {
						t.Errorf("%s calls %s.%s", file, x.Name, n.Sel.Name)
					}
				}
				return true
			})
		}
	}
}

func TestNoPackageIsADrawer(t *testing.T) {
	for path, p := range list(t) {
		if slices.Contains([]string{"util", "utils", "common", "helper", "helpers", "misc", "shared"}, p.Name) {
			t.Errorf("package %s says nothing of what it holds", path)
		}
	}
}

// TestFilesHoldOneIdea keeps files readable: over 500 lines one is split.
func TestFilesHoldOneIdea(t *testing.T) {
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && d.Name() != ".." && d.Name() != "." || d.Name() == "bin") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, ".pb.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if lines := bytes.Count(text, []byte("\n")); lines > 500 {
			t.Errorf("%s has %d lines, want at most 500", path, lines)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
