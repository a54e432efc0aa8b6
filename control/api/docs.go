package api

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/julienschmidt/httprouter"
	"go.yaml.in/yaml/v3"

	"ecs/proto/api"
)

//go:embed docs.html
var docsTemplate string

//go:embed docs.css
var docsStyle string

// openAPI serves GET /openapi.yaml.
func (h *Handler) openAPI(w http.ResponseWriter, _ *http.Request, _ httprouter.Params) error {
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = io.WriteString(w, api.OpenAPI()) // a caller that is gone needs no answer
	return nil
}

// docs serves GET /docs: openapi.yaml as a page, and what every error code
// means. The type of every error refers to its line there. The page needs no
// script and asks for nothing else, which its policy says.
func (h *Handler) docs(w http.ResponseWriter, _ *http.Request, _ httprouter.Params) error {
	page, err := docsPage()
	if err != nil {
		return fmt.Errorf("make the documentation: %w", err)
	}
	style := sha256.Sum256([]byte(docsStyle))
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src 'sha256-"+
		base64.StdEncoding.EncodeToString(style[:])+"'")
	_, _ = w.Write(page) // a caller that is gone needs no answer
	return nil
}

// docsPage is made when it is first asked for.
var docsPage = sync.OnceValues(func() ([]byte, error) {
	made, err := template.New("docs").Parse(docsTemplate)
	if err != nil {
		return nil, err
	}
	d, err := readDocs([]byte(api.OpenAPI()))
	if err != nil {
		return nil, err
	}
	d.Style, d.Codes = template.CSS(docsStyle), api.Codes()
	var page bytes.Buffer
	if err := made.Execute(&page, d); err != nil {
		return nil, err
	}
	return page.Bytes(), nil
})

// docsData is what the page shows.
type docsData struct {
	Style              template.CSS
	Title, Description string
	LatencyOn          string // the machine that latencies are of
	Tags               []docsTag
	Schemas            []docsSchema
	Codes              []api.CodeInfo
}

type docsTag struct {
	Name, Description string
	Operations        []docsOperation
}

type docsOperation struct {
	ID, Method, Path, Summary, Description string
	Open                                   bool // needs no key
	Latency                                *docsLatency
	Parameters                             []docsParameter
	Examples                               []docsExample
	Responses                              []docsResponse
}

type docsLatency struct {
	P50 float64 `yaml:"p50_ms"`
	P99 float64 `yaml:"p99_ms"`
}

type docsParameter struct{ Name, In, Description string }

type docsExample struct{ Summary, Call string }

type docsResponse struct{ Status, Description string }

type docsSchema struct{ Name, Text string }

// document is openapi.yaml, as far as the page shows it; the order of what is
// there is kept where a yaml.Node stands.
type document struct {
	Info       struct{ Title, Description string }
	Tags       []struct{ Name, Description string }
	Paths      yaml.Node
	Latency    map[string]docsLatency `yaml:"x-latency"`
	LatencyOn  string                 `yaml:"x-latency-on"`
	Components struct {
		Parameters map[string]docsParameter
		Responses  map[string]struct{ Description string }
		Schemas    yaml.Node
	}
}

type operationYAML struct {
	Tags                 []string
	Summary, Description string
	Security             *[]any
	Parameters           []parameterYAML
	RequestBody          struct {
		Content map[string]struct {
			Examples map[string]struct {
				Summary string
				Value   any
			}
		}
	} `yaml:"requestBody"`
	Responses yaml.Node
}

type parameterYAML struct {
	Ref           string `yaml:"$ref"`
	docsParameter `yaml:",inline"`
}

func readDocs(text []byte) (docsData, error) {
	var doc document
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return docsData{}, err
	}
	d := docsData{Title: doc.Info.Title, Description: doc.Info.Description, LatencyOn: doc.LatencyOn}
	place := make(map[string]int, len(doc.Tags))
	for i, t := range doc.Tags {
		place[t.Name] = i
		d.Tags = append(d.Tags, docsTag{Name: t.Name, Description: t.Description})
	}
	err := pairsOf(&doc.Paths, func(path string, item *yaml.Node) error {
		var shared struct{ Parameters []parameterYAML }
		if err := item.Decode(&shared); err != nil {
			return err
		}
		return pairsOf(item, func(method string, node *yaml.Node) error {
			if method == "parameters" {
				return nil
			}
			var op operationYAML
			if err := node.Decode(&op); err != nil {
				return fmt.Errorf("%s %s: %w", method, path, err)
			}
			if len(op.Tags) != 1 {
				return fmt.Errorf("%s %s: %d tags, want one", method, path, len(op.Tags))
			}
			op.Parameters = append(shared.Parameters, op.Parameters...)
			made, err := doc.operation(strings.ToUpper(method), path, op)
			tag := &d.Tags[place[op.Tags[0]]]
			tag.Operations = append(tag.Operations, made)
			return err
		})
	})
	if err != nil {
		return d, err
	}
	return d, pairsOf(&doc.Components.Schemas, func(name string, schema *yaml.Node) error {
		text, err := yaml.Marshal(schema)
		d.Schemas = append(d.Schemas, docsSchema{name, string(text)})
		return err
	})
}

func (doc *document) operation(method, path string, op operationYAML) (docsOperation, error) {
	made := docsOperation{ID: anchor.Replace(method + path), Method: method, Path: path, Summary: op.Summary, Description: op.Description, Open: op.Security != nil && len(*op.Security) == 0}
	if l, ok := doc.Latency[method+" "+path]; ok {
		made.Latency = &l
	}
	for _, p := range op.Parameters {
		if p.Ref != "" {
			p.docsParameter = doc.Components.Parameters[nameOf(p.Ref)]
		}
		made.Parameters = append(made.Parameters, p.docsParameter)
	}
	for _, name := range slices.Sorted(maps.Keys(op.RequestBody.Content["application/json"].Examples)) {
		example := op.RequestBody.Content["application/json"].Examples[name]
		body, err := json.Marshal(example.Value)
		if err != nil {
			return made, fmt.Errorf("example %s of %s %s: %w", name, method, path, err)
		}
		quoted := strings.ReplaceAll(string(body), "'", `'\''`)
		made.Examples = append(made.Examples, docsExample{example.Summary,
			fmt.Sprintf("curl -u \"$ECS_KEY:$ECS_SECRET\" -H 'Content-Type: application/json' \\\n  \"$ECS_ENDPOINT%s\" -d '%s'", path, quoted)})
	}
	return made, pairsOf(&op.Responses, func(status string, node *yaml.Node) error {
		var r struct {
			Ref         string `yaml:"$ref"`
			Description string
		}
		if err := node.Decode(&r); err != nil {
			return err
		}
		if r.Ref != "" {
			r.Description = doc.Components.Responses[nameOf(r.Ref)].Description
		}
		made.Responses = append(made.Responses, docsResponse{status, r.Description})
		return nil
	})
}

// pairsOf gives the members of a mapping in the order of the text.
func pairsOf(n *yaml.Node, each func(name string, value *yaml.Node) error) error {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if err := each(n.Content[i].Value, n.Content[i+1]); err != nil {
			return err
		}
	}
	return nil
}

// anchor makes of an operation's method and path what a link can name.
var anchor = strings.NewReplacer("/", "-", "{", "", "}", "", ".", "-")

// nameOf is the last part of a reference.
func nameOf(ref string) string { return ref[strings.LastIndexByte(ref, '/')+1:] }

// metrics serves GET /metrics.
func (h *Handler) metrics(w http.ResponseWriter, r *http.Request, _ httprouter.Params) error {
	h.cfg.Metrics.ServeHTTP(w, r)
	return nil
}
