package api

import (
	"bytes"
	"math"
	"strings"
	"time"

	"ecs/internal/task"
	"ecs/proto/api"
)

// Bounds of a v2 task that are the protocol's own.
const (
	maxRetention = 7 * 24 * time.Hour
	minMilliCPU  = 1
	minLimitCPU  = 10      // the engine takes no ceiling below a hundredth
	maxMilliCPU  = 1 << 20 // a thousand cores; what a node has is asked later
	maxMemory    = math.MaxInt64 / 4
)

// request is what a body asks for.
type request struct {
	api       task.API
	spec      task.Spec
	secrets   task.Secrets
	maxInline int64
	// canonical is the same for every body that says the same.
	canonical []byte
}

// parser reads request bodies.
type parser struct {
	grammar *grammar
	capAdd  []string // what tasks may ask for
}

// v2 reads the body of POST /v2/tasks. The error is a *task.Error that lists
// every fault.
func (p *parser) v2(body []byte) (request, error) {
	f := new(faults)
	root, ok := decode(body, f)
	if !ok {
		return request{}, f.err()
	}
	r := request{api: task.V2, maxInline: api.DefaultInline, canonical: canonical("v2", root)}
	o := fieldsOf(root, f)
	o.notYet("webhook", "priority")
	p.program(o, &r)
	p.input(o, &r.spec)
	r.spec.Outputs = outputPaths(o)
	p.resources(o, &r.spec)
	if nested := o.object("timeouts"); nested != nil {
		r.spec.Timeouts = timeouts(nested)
	}
	r.spec.Delivery = choice(o, "delivery", task.AtLeastOnce, task.AtMostOnce)
	retry(o, &r.spec)
	r.spec.Lease = o.duration("lease", task.DefaultLease, task.MaxLease)
	p.placement(o, &r.spec)
	if nested := o.object("registry_auth"); nested != nil {
		r.secrets.Auth = credentials(nested)
	}
	r.spec.MaxOutput = o.size("max_output", 1, task.MaxOutput)
	if v := o.take("max_inline"); v != nil {
		r.maxInline = o.size("max_inline", 0, api.MaxInline)
	}
	p.labels(o, &r.spec)
	r.spec.Retention = o.duration("retention", time.Second, maxRetention)
	o.done()
	return r, f.err()
}

// program reads what is run and how.
func (p *parser) program(o *fields, r *request) {
	s := &r.spec
	s.Image = image(o, "image", parseImage)
	s.Command = o.texts("command")
	s.Entrypoint = o.texts("entrypoint")
	switch {
	case s.Command != nil && len(s.Command) == 0:
		o.faults.add(o.at("command"), "", "must not be empty; leave it out to run the image's own command")
	case len(s.Command) > 0 && s.Command[0] == "" && len(s.Entrypoint) == 0:
		o.faults.add(o.at("command")+"/0", "", "must not be empty")
	}
	if len(s.Entrypoint) > 0 && s.Entrypoint[0] == "" {
		o.faults.add(o.at("entrypoint")+"/0", "", "must not be empty")
	}
	s.Env = o.texts("env")
	r.secrets.Env = o.texts("secret_env")
	checkArguments(o.faults, o.at("command"), s.Command)
	checkArguments(o.faults, o.at("entrypoint"), s.Entrypoint)
	checkEnv(o.faults, o.at("env"), s.Env)
	checkEnv(o.faults, o.at("secret_env"), r.secrets.Env)
	checkTotal(o.faults, s.Command, s.Entrypoint, s.Env, r.secrets.Env)
	s.Workdir = o.text("workdir")
	checkWorkdir(o.faults, o.at("workdir"), s.Workdir)
	s.User = o.text("user")
	p.grammar.checkUser(o.faults, o.at("user"), s.User)
	s.CapAdd = capabilities(o.faults, o.at("cap_add"), o.texts("cap_add"), p.capAdd)
	s.Network = choice(o, "network", task.NetworkNone, task.NetworkEgress)
}

func (p *parser) resources(o *fields, s *task.Spec) {
	n := o.object("resources")
	if n == nil {
		return
	}
	n.notYet("disk")
	r := &s.Resources
	r.MilliCPU = n.cpu("cpu", minMilliCPU, maxMilliCPU)
	r.MilliCPULimit = n.cpu("cpu_limit", minLimitCPU, maxMilliCPU)
	switch {
	case r.MilliCPULimit == 0:
	case r.MilliCPU == 0:
		r.MilliCPU = min(task.DefaultMilliCPU, r.MilliCPULimit)
	case r.MilliCPULimit < r.MilliCPU:
		n.faults.add(n.at("cpu_limit"), "", "must not be less than cpu")
	}
	r.Memory = n.size("memory", task.MinMemory, maxMemory)
	r.Pids, _ = n.count("pids", 1, task.MaxPids)
	n.done()
}

func (p *parser) placement(o *fields, s *task.Spec) {
	n := o.object("placement")
	if n == nil {
		return
	}
	n.notYet("constraints")
	s.Placement.Zones = n.texts("zones")
	p.grammar.checkZones(n.faults, n.at("zones"), s.Placement.Zones)
	s.Placement.Spread = choice(n, "spread", task.SpreadNodes, task.BinPack)
	n.done()
}

func (p *parser) labels(o *fields, s *task.Spec) {
	v := o.of("labels", object)
	if v == nil {
		return
	}
	if len(v.members) > task.MaxLabels {
		o.faults.add(v.pointer, "", "must be at most %d labels", task.MaxLabels)
		return
	}
	s.Labels = make(map[string]string, len(v.members))
	for _, m := range v.members {
		if m.kind != text {
			o.faults.add(m.pointer, "", "must be a string, not %s", m.kind)
			continue
		}
		p.grammar.checkLabel(o.faults, m.pointer, m.name, m.text)
		s.Labels[m.name] = m.text
	}
}

func timeouts(n *fields) task.Timeouts {
	t := task.Timeouts{
		Queue: n.duration("queue", time.Millisecond, task.MaxTimeout),
		Pull:  n.duration("pull", time.Millisecond, task.MaxTimeout),
		Run:   n.duration("run", time.Millisecond, task.MaxTimeout),
		Total: n.duration("total", time.Millisecond, task.MaxTimeout),
	}
	n.done()
	return t
}

// image reads an image reference, which every request needs.
func image(o *fields, name string, parse func(string) (string, error)) string {
	v := o.of(name, text)
	if v == nil {
		if _, wrong := find(o.members, name); !wrong {
			o.faults.add(o.at(name), "", "is missing")
		}
		return ""
	}
	ref, err := parse(v.text)
	if err != nil {
		o.faults.add(v.pointer, task.CodeImageRef, "%v", err)
	}
	return ref
}

// find gives a member unless it is absent or null.
func find(members []member, name string) (member, bool) {
	for _, m := range members {
		if m.name == name && m.kind != null {
			return m, true
		}
	}
	return member{}, false
}

// credentials reads a caller's own name and password at the registry.
func credentials(n *fields) *task.RegistryAuth {
	auth := &task.RegistryAuth{Username: n.text("username"), Password: n.text("password"), Email: n.text("email")}
	for _, name := range []string{"username", "password"} {
		if v, ok := find(n.members, name); !ok || v.kind == text && v.text == "" {
			n.faults.add(n.at(name), "", "is missing or empty")
		}
	}
	if strings.Contains(auth.Username, ":") {
		n.faults.add(n.at("username"), "", "must not contain a colon")
	}
	n.done()
	return auth
}

// canonical gives the bytes that the idempotency of a request is judged by.
func canonical(route string, root value) []byte {
	var b bytes.Buffer
	b.WriteString(route)
	b.WriteByte('\n')
	root.canonical(&b)
	return b.Bytes()
}
