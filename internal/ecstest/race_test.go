//go:build race

package ecstest_test

// The race detector makes a run ten times as dear: it looks at a few seeds, and
// the run without it (test/run does both) at all of them.
const defaultSeeds = 4
