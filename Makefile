# make demo    the main job on real parts, in a throw-away lab (KEEP=1 leaves it running)
# make test    every test, against real servers that it starts itself
# The rest is listed by `make help`.

GO      ?= go
PREFIX  ?= /usr/local
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  = -s -w -X main.version=$(VERSION)

# Where a data race would cost a promise; these run under the race detector.
RACE = ./internal/lease/...,./internal/lane/...,./internal/storage/...,./internal/barrier/...,./internal/token/...,./internal/policy/...,./internal/core/...

.DEFAULT_GOAL := help
.PHONY: help build install demo test test-quick lint fmt bench bench-leases bench-file bench-logins fuzz docs examples wire need clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## bin/leasehold, one static binary
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/leasehold ./cmd/leasehold

install: build ## copy the binary to $(PREFIX)/bin
	install -D -m 0755 bin/leasehold $(DESTDIR)$(PREFIX)/bin/leasehold

demo: ## database credentials that expire, from login to revocation, in a few minutes
	@scripts/need.sh postgres
	@echo "==> Compiling the server and the demo (the first time takes a few minutes, nearly all of it the compiler)"
	@mkdir -p bin
	@CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/leasehold ./cmd/leasehold
	@CGO_ENABLED=0 $(GO) build -o bin/leasehold-demo ./internal/demo
	@KEEP=$(KEEP) bin/leasehold-demo -server bin/leasehold

test: ## every test, race detector and fuzz targets included; ends with their number
	@scripts/need.sh postgres psql slapd race node python hvac openssl
	@CI=true $(GO) run ./internal/testrun -race=$(RACE)

test-quick: ## plain tests only: no race detector, no fuzzing
	@CI=true $(GO) run ./internal/testrun -fuzztime=0

lint: ## gofmt, go vet, staticcheck (pinned in tools/go.mod)
	@bad=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$bad" ] || { echo "gofmt would change:"; echo "$$bad"; exit 1; }
	$(GO) vet ./...
	$(GO) tool -modfile=tools/go.mod staticcheck ./...

fmt: ## gofmt everything
	gofmt -w $$(git ls-files '*.go')

fuzz: ## each fuzz target for a minute
	$(GO) run ./internal/testrun -tests=false -fuzztime=1m

bench: ## operations per second, latency and CPU of each kind of request
	@scripts/need.sh postgres
	$(GO) run ./internal/bench speed

bench-leases: ## a million tokens, a kill -9, and storms of expiry
	@scripts/need.sh postgres
	$(GO) run ./internal/bench leases

bench-file: ## 10 GB through transit encrypt-file and back, beside age (30 GB of disk)
	@scripts/need.sh age
	$(GO) run ./internal/bench file

bench-logins: ## how logins share syncs, and a million that store nothing
	$(GO) run ./internal/bench logins

docs: ## rewrite the outputs on the pages under docs/ from what the commands print
	@scripts/need.sh postgres psql slapd openssl
	CI=true $(GO) test -count=1 ./internal/doctest -update

examples: ## run everything under examples/, after building the programs it is for (minutes, once)
	@scripts/need.sh postgres python hvac
	CI=true $(GO) test -count=1 -timeout=60m -v -tags=examples -run='TestExamples|Example$$|TestConsulTemplate|TestSops|TestTerraform' ./internal/clienttest

wire: ## replay the recorded API exchanges and list what differs
	@scripts/need.sh postgres psql
	CI=true $(GO) test -count=1 -v -run=TestTranscripts ./internal/wiretest

need: ## install what tests and demo need
	@scripts/need.sh postgres psql slapd race node python hvac openssl

clean: ## remove what was built
	rm -rf bin
