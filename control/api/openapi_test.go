package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"ecs/proto/api"
)

// description is openapi.yaml, ready to check exchanges against. An OpenAPI 3.1
// schema is a JSON schema, so a validator of those is all it takes.
type description struct {
	document   map[string]any
	operations map[string]operation // by "GET /v2/tasks/{id}"
	compiler   *jsonschema.Compiler
	mu         sync.Mutex
	seen       map[string]bool // "GET /v2/tasks 200" was answered as described
	schemas    map[string]*jsonschema.Schema
}

type operation struct {
	path      *regexp.Regexp
	pointer   string // into the document
	responses map[string]any
}

// described is made once: every exchange of every test is checked against it.
var described = sync.OnceValues(func() (*description, error) {
	var doc map[string]any
	if err := yaml.Unmarshal([]byte(api.OpenAPI()), &doc); err != nil {
		return nil, err
	}
	b, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	plain, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	d := &description{document: plain.(map[string]any), operations: make(map[string]operation), compiler: jsonschema.NewCompiler(), schemas: make(map[string]*jsonschema.Schema), seen: make(map[string]bool)}
	d.compiler.DefaultDraft(jsonschema.Draft2020)
	if err := d.compiler.AddResource("openapi.json", plain); err != nil {
		return nil, err
	}
	for path, item := range doc["paths"].(map[string]any) {
		pattern := regexp.MustCompile(`\\\{[a-z]+\\\}`).ReplaceAllString(regexp.QuoteMeta(path), `[^/]+`)
		for method, op := range item.(map[string]any) {
			if method == "parameters" {
				continue
			}
			d.operations[strings.ToUpper(method)+" "+path] = operation{
				path:      regexp.MustCompile("^" + pattern + "$"),
				pointer:   "/paths/" + escape(path) + "/" + method,
				responses: op.(map[string]any)["responses"].(map[string]any),
			}
		}
	}
	return d, nil
})

// at compiles the schema at a pointer.
func (d *description) at(pointer string) (*jsonschema.Schema, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.schemas[pointer]; s != nil {
		return s, nil
	}
	s, err := d.compiler.Compile("openapi.json#" + pointer)
	d.schemas[pointer] = s
	return s, err
}

// check holds an exchange against the description: the status is one of the
// operation's, the body fits its schema, and no body was accepted that the
// description forbids. A path that is not described is not checked.
func (d *description) check(method, path, body string, a answer) error {
	path, _, _ = strings.Cut(path, "?")
	for name, op := range d.operations {
		if !strings.HasPrefix(name, method+" ") || !op.path.MatchString(path) || a.status == http.StatusInternalServerError {
			continue
		}
		response, ok := op.responses[strconv.Itoa(a.status)].(map[string]any)
		if !ok {
			return fmt.Errorf("%s answers %d, which is not described", name, a.status)
		}
		pointer := op.pointer + "/responses/" + strconv.Itoa(a.status)
		if ref, ok := response["$ref"].(string); ok {
			pointer = strings.TrimPrefix(ref, "#")
		}
		kind, _, _ := strings.Cut(a.header.Get("Content-Type"), ";")
		if err := d.typed(pointer, kind, a); err != nil {
			return fmt.Errorf("%s answers %d: %w", name, a.status, err)
		}
		d.mu.Lock()
		d.seen[name+" "+strconv.Itoa(a.status)] = true
		d.mu.Unlock()
		if strings.HasSuffix(kind, "json") && len(a.body) > 0 {
			if err := d.fits(pointer+"/content/"+escape(kind)+"/schema", a.body); err != nil {
				return fmt.Errorf("%s answers %d %s: %w", name, a.status, a.body, err)
			}
		}
		if a.status < 300 && strings.HasSuffix(name, "/tasks") && method == http.MethodPost {
			return d.fits(op.pointer+"/requestBody/content/application~1json/schema", []byte(strings.ReplaceAll(body, `,"stdin":null`, "")))
		}
	}
	return nil
}

// typed holds an answer's content type against the description, where that names
// any.
func (d *description) typed(pointer, kind string, a answer) error {
	var at any = d.document
	for _, part := range strings.Split(strings.TrimPrefix(pointer, "/"), "/") {
		at = at.(map[string]any)[unescape(part)]
	}
	content, described := at.(map[string]any)["content"].(map[string]any)
	if _, ok := content[kind]; described && len(a.body) > 0 && !ok {
		return fmt.Errorf("content of type %q is not described", kind)
	}
	return nil
}

func (d *description) fits(pointer string, body []byte) error {
	schema, err := d.at(pointer)
	if err != nil {
		return fmt.Errorf("schema at %s: %w", pointer, err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return err
	}
	return schema.Validate(v)
}

func TestDescriptionNamesEveryRouteAndNoOther(t *testing.T) {
	d, err := described()
	if err != nil {
		t.Fatal(err)
	}
	routed := make(map[string]bool)
	for _, rt := range (&Handler{}).routes() {
		name := rt.method + " " + regexp.MustCompile(`:([a-z]+)`).ReplaceAllString(rt.path, "{$1}")
		routed[name] = true
		if _, ok := d.operations[name]; !ok {
			t.Errorf("%s is routed but not described", name)
		}
	}
	for name := range d.operations {
		if !routed[name] {
			t.Errorf("%s is described but not routed", name)
		}
	}
}

func TestEverySchemaIsOne(t *testing.T) {
	d, err := described()
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Components struct{ Schemas map[string]any }
	}
	if err := yaml.Unmarshal([]byte(api.OpenAPI()), &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.Components.Schemas) < 20 {
		t.Errorf("got %d schemas", len(doc.Components.Schemas))
	}
	for name := range doc.Components.Schemas {
		if _, err := d.at("/components/schemas/" + name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOutcomesAndCodesAreTheSameEverywhere(t *testing.T) {
	d, err := described()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []string{api.OutcomeExited, api.OutcomeTimedOut, api.OutcomeOOMKilled, api.OutcomeCancelled, api.OutcomeImageNotFound, api.OutcomeImageDenied,
		api.OutcomeImageUnavailable, api.OutcomeImageInvalid, api.OutcomePullTimedOut, api.OutcomeStartFailed, api.OutcomeQueueExpired, api.OutcomeDeadlineExceeded,
		api.OutcomeInterrupted, api.OutcomeNodeLost} {
		if err := d.fits("/components/schemas/Outcome", []byte(strconv.Quote(o))); err != nil {
			t.Errorf("%s: %v", o, err)
		}
	}
	if d.fits("/components/schemas/Outcome", []byte(`"lost"`)) == nil || d.fits("/components/schemas/Task", []byte(`{"id":"x"}`)) == nil {
		t.Error("the schemas take everything")
	}
}

// unescape undoes what a JSON pointer does to a name.
func unescape(part string) string {
	return strings.ReplaceAll(strings.ReplaceAll(part, "~1", "/"), "~0", "~")
}
