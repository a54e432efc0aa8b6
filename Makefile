# Every target is one visible command. `make help` lists them.
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
export VERSION

.DEFAULT_GOAL := help
.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build the programs into bin/
	@ops/setup/go.sh
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-X ecs/internal/version.linked=$(VERSION)' -o bin/ ./cmd/...

.PHONY: demo
demo: ## start 3 control nodes and 3 agents on this machine, and run tasks
	@test/demo up

.PHONY: demo-down
demo-down: ## end the demo's cluster and remove all of it
	@test/demo down

.PHONY: test
test: ## run all tests, with real Docker, and leave nothing
	@test/run

.PHONY: check
check: ## gofmt, vet, staticcheck, tidy go.mod
	@ops/setup/go.sh
	@unformatted=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); [ -z "$$unformatted" ] || { echo "gofmt would change:" $$unformatted; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) mod tidy -diff

# What a run of `make bench` measures and writes; see `bin/tools/load -h`.
BENCH ?= -json docs/bench.json -svg docs/bench.svg

.PHONY: bench
bench: build ## measure ECS beside the raw engine and its peers (BENCH='-quick -only ...', PEER_NOMAD=path)
	@ops/setup/engine.sh up
	@ops/setup/busybox.sh
	$(GO) build -o bin/tools/ ./test/load
	bin/tools/load $(BENCH) $(if $(PEER_NOMAD),-nomad $(PEER_NOMAD))
	$(GO) run ./test/load/describe docs/bench.json proto/api/openapi.yaml

# How long `make soak` takes; see `bin/tools/load soak -h`.
SOAK ?= -tasks 20000 -span 1h

.PHONY: soak
soak: build ## run warm and cold tasks mixed for an hour and look for leaks (SOAK='-tasks 300 -span 1m')
	@ops/setup/engine.sh up
	@ops/setup/busybox.sh
	$(GO) build -o bin/tools/ ./test/load
	bin/tools/load soak $(SOAK)

# How a run of `make chaos` goes; see `go run ./test/chaos -h`.
CHAOS ?= -for 200s

.PHONY: chaos
chaos: ## break a cluster of real processes on purpose and check its promises (CHAOS='-seed N -for 200s')
	@ops/setup/go.sh
	@ops/setup/engine.sh up
	@ops/setup/busybox.sh
	$(GO) build -o bin/tools/ ./test/chaos
	bin/tools/chaos $(CHAOS)

.PHONY: sim
sim: ## place 100,000 tasks on 100, 1,000 and 10,000 simulated nodes
	$(GO) run ./test/sim/table

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (default 15s)
	@test/fuzz

.PHONY: generate
generate: ## regenerate Go from proto/
	$(GO) build -o bin/tools/ google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
	PATH="$(CURDIR)/bin/tools:$$PATH" protoc -I proto --go_out=proto --go_opt=module=ecs/proto --go-grpc_out=proto --go-grpc_opt=module=ecs/proto proto/ecs/v1/ecs.proto proto/ecs/v1/rpc/rpc.proto
