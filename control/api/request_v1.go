package api

import (
	"errors"
	"strings"

	"ecs/internal/task"
)

// v1 reads the body of POST /v1.1/tasks or, with separate, of /v1.0/tasks,
// whose tag is a member of its own. The error is a *task.Error that lists every
// fault.
func (p *parser) v1(body []byte, separate bool) (request, error) {
	f := new(faults)
	root, ok := decode(body, f)
	if !ok {
		return request{}, f.err()
	}
	route := "v1.1"
	if separate {
		route = "v1.0"
	}
	r := request{api: task.V1, canonical: canonical(route, root)}
	o := fieldsOf(root, f)
	if separate {
		r.spec.Image = imageAndTag(o)
	} else {
		r.spec.Image = image(o, "docker_image", parseTagged)
	}
	r.spec.Command = o.texts("cmd")
	switch _, there := find(o.members, "cmd"); {
	case !there:
		f.add("/cmd", "", "is missing")
	case r.spec.Command != nil && len(r.spec.Command) == 0:
		f.add("/cmd", "", "must not be empty")
	case len(r.spec.Command) > 0 && r.spec.Command[0] == "":
		f.add("/cmd/0", "", "must not be empty")
	}
	if nested := o.object("creds"); nested != nil {
		r.secrets.Auth = credentials(nested)
	}
	o.done()
	r.spec.DefaultCaps = true
	r.spec.MaxOutput = task.V1MaxOutput
	r.spec.InfrastructureRetries = task.DefaultRetries
	return r, f.err()
}

// imageAndTag reads v1.0's two members.
func imageAndTag(o *fields) string {
	before := len(o.faults.list)
	repository := image(o, "docker_image", func(s string) (string, error) { return s, parseRepository(s) })
	tag := image(o, "tag", func(s string) (string, error) {
		if _, err := parseReference("a.b/c:" + s); err != nil || strings.Contains(s, "@") {
			return "", errors.New(`is not a tag such as "latest"`)
		}
		return s, nil
	})
	if len(o.faults.list) > before {
		return ""
	}
	ref := repository + ":" + tag
	if _, err := parseTagged(ref); err != nil {
		o.faults.add(o.at("docker_image"), task.CodeImageRef, "%v", err)
	}
	return ref
}
