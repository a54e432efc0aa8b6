// Package version says which build of ECS this is.
package version

import "runtime/debug"

// linked is set by the linker: -X ecs/internal/version.linked=v1.2.3.
var linked string

// String gives the version the build was given, else the commit the Go tool
// recorded, else "dev". It has no spaces and at most 64 characters, so that it
// fits gossip metadata and headers.
func String() string {
	v := linked
	if v == "" {
		v = recorded()
	}
	if v == "" {
		v = "dev"
	}
	return v[:min(len(v), 64)]
}

func recorded() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value[:min(len(s.Value), 12)]
		}
	}
	return ""
}
