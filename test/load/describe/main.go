// Command describe writes into openapi.yaml how long each operation takes, from
// the JSON that a run of the benchmarks left. `make bench` calls it.
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: describe BENCH.json OPENAPI.yaml")
		os.Exit(2)
	}
	if err := describe(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "describe:", err)
		os.Exit(1)
	}
}

func describe(bench, openapi string) error {
	found, err := Read(bench)
	if err != nil {
		return err
	}
	if len(found.Operations) == 0 {
		return nil // the operations were not measured this time
	}
	text, err := os.ReadFile(openapi)
	if err != nil {
		return err
	}
	next, err := Stated(string(text), found)
	if err != nil {
		return fmt.Errorf("%s: %w", openapi, err)
	}
	return os.WriteFile(openapi, []byte(next), 0o644)
}
