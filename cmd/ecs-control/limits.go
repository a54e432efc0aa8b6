package main

import (
	"errors"
	"flag"
	"fmt"

	"ecs/control/api"
	"ecs/internal/access"
)

// limitFlags are the settings of what callers may take.
func (o *options) limitFlags() []struct {
	name  string
	value *int
	usage string
} {
	l := &o.limits
	return []struct {
		name  string
		value *int
		usage string
	}{
		{"key-rate", &l.KeyRate, "requests a second that one API key may make here; 0: as `many` as it wants. Keys of the record may have limits of their own"},
		{"key-concurrency", &l.KeyConcurrency, "how `many` requests of one key may be in progress here, long polls included; 0: any number"},
		{"key-quota", &l.KeyQuota, "how `many` tasks of one key may wait for a node; 0: any number"},
		{"address-rate", &l.AddressRate, "how `many` requests a second may come from one address (IPv6: one /64); 0: any number"},
		{"address-concurrency", &l.AddressConcurrency, "how `many` requests of one address may be in progress here; 0: any number"},
		{"docs-rate", &l.DocsRate, "how `many` requests a second of one address what needs no key answers; 0: any number"},
		{"docs-concurrency", &l.DocsConcurrency, "how `many` requests of one address for what needs no key may be in progress; 0: any number"},
	}
}

func (o *options) defineLimits(fs *flag.FlagSet) {
	o.limits = api.DefaultLimits()
	for _, f := range o.limitFlags() {
		fs.IntVar(f.value, f.name, *f.value, f.usage)
	}
}

func (o *options) checkLimits() error {
	var faults []error
	for _, f := range o.limitFlags() {
		if *f.value < 0 || *f.value > access.MaxLimit {
			faults = append(faults, fmt.Errorf("--%s %d: want 0 to %d", f.name, *f.value, access.MaxLimit))
		}
	}
	return errors.Join(faults...)
}
