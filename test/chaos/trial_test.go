package main

import (
	"testing"

	"ecs/test/chaos/check"
)

func TestAShorterListIsNotSettled(t *testing.T) {
	two, one := make([]check.Record, 2), make([]check.Record, 1)
	if !sameCounts(map[string][]check.Record{"c1": two, "c2": two, "c3": two}) {
		t.Error("three equal lists are not taken for settled")
	}
	if sameCounts(map[string][]check.Record{"c1": two, "c2": two, "c3": one}) {
		t.Error("a node that lags is taken for settled")
	}
}
