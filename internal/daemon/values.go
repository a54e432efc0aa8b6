package daemon

import (
	"errors"
	"fmt"
	"strings"

	"ecs/proto/api"
)

// List is a setting of several values: given more than once, or with commas.
type List []string

// String joins the values with commas.
func (l *List) String() string { return strings.Join(*l, ",") }

// Set appends the values.
func (l *List) Set(text string) error {
	for _, v := range strings.Split(text, ",") {
		if v = strings.TrimSpace(v); v != "" {
			*l = append(*l, v)
		}
	}
	return nil
}

// Bytes is a size: 512MiB, 2GiB, or a plain number of bytes.
type Bytes int64

// String gives the size as Set takes it.
func (b *Bytes) String() string {
	if *b == 0 {
		return ""
	}
	return api.Size(*b).String()
}

// Set parses a size.
func (b *Bytes) Set(text string) error {
	n, err := api.ParseSize(text)
	if err == nil && n < 0 {
		err = fmt.Errorf("%s is less than nothing", text)
	}
	if err != nil {
		return err
	}
	*b = Bytes(n)
	return nil
}

// CPUs is an amount of processor in thousandths: 2, 0.5 or 500m.
type CPUs int64

// String gives the amount as Set takes it.
func (c *CPUs) String() string {
	if *c == 0 {
		return ""
	}
	return api.CPU(*c).String()
}

// Set parses an amount of processor.
func (c *CPUs) Set(text string) error {
	n, err := api.ParseCPU(text)
	if err == nil && n < 0 {
		err = fmt.Errorf("%s is less than nothing", text)
	}
	if err != nil {
		return err
	}
	*c = CPUs(n)
	return nil
}

// Reserve is what of a machine is kept from tasks: cpu=0.5,memory=512MiB.
type Reserve struct {
	CPUs   CPUs
	Memory Bytes
}

// String gives the reserve as Set takes it.
func (r *Reserve) String() string {
	var parts []string
	if r.CPUs != 0 {
		parts = append(parts, "cpu="+r.CPUs.String())
	}
	if r.Memory != 0 {
		parts = append(parts, "memory="+r.Memory.String())
	}
	return strings.Join(parts, ",")
}

// Set parses a reserve and replaces the old one.
func (r *Reserve) Set(text string) error {
	var next Reserve
	var faults []error
	for _, part := range strings.Split(text, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch name {
		case "cpu":
			faults = append(faults, next.CPUs.Set(value))
		case "memory":
			faults = append(faults, next.Memory.Set(value))
		default:
			faults = append(faults, fmt.Errorf("%q is neither cpu=AMOUNT nor memory=SIZE", part))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return err
	}
	*r = next
	return nil
}

// Choice is a setting with a closed list of values.
type Choice struct {
	Value   string
	Allowed []string
}

// String gives the value.
func (c *Choice) String() string { return c.Value }

// Set takes one of the allowed values.
func (c *Choice) Set(text string) error {
	for _, a := range c.Allowed {
		if text == a {
			c.Value = a
			return nil
		}
	}
	return fmt.Errorf("%q is not one of %s", text, strings.Join(c.Allowed, ", "))
}
