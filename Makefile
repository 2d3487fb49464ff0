# What to call:
#   make build       bin/layerfs
#   make demo        install what is missing, build an image, load it, mount it
#   make check       lint and all tests; what a contributor and CI run
#   make help        the other targets

SHELL        := /bin/bash
VERSION      := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# The tag drops the man-page generator of urfave/cli and its two modules.
TAGS         := urfave_cli_no_docs
LDFLAGS      := -s -w -X main.version=$(VERSION)
PREFIX       ?= /usr/local
FUZZTIME     ?= 30s
GOVULNDB     ?= https://vuln.go.dev
# As each account, root and an ordinary user.
SOAKTIME     ?= 15m
SOAKKILL     ?=
# A test that hangs on a mount must not hang the machine.
TESTTIMEOUT  ?= 1200s
BENCHFLAGS   ?=
TOOLS        := $(CURDIR)/.cache/bin
STATICCHECK  := $(TOOLS)/staticcheck-v0.8.2
GOFUMPT      := $(TOOLS)/gofumpt-v0.12.0
GOVULNCHECK  := $(TOOLS)/govulncheck-v1.9.0

# Static: the binary runs on any Linux, and the user database is read by Go.
export CGO_ENABLED ?= 0

.PHONY: all build install check test test-race test-fuse test-faults soak test-heavy vulncheck fuzz bench lint fmt demo demo-clean clean help

all: build

build: ## build bin/layerfs
	go build -trimpath -tags $(TAGS) -ldflags '$(LDFLAGS)' -o bin/layerfs ./cmd/layerfs

install: build ## install it below PREFIX (/usr/local)
	install -D -m 0755 bin/layerfs $(DESTDIR)$(PREFIX)/bin/layerfs

check: lint test ## lint and all tests

test: ## all tests; what the machine lacks is skipped with the reason
	go test -timeout $(TESTTIMEOUT) ./...

# The race detector needs cgo.
test-race: ## all tests with the race detector
	CGO_ENABLED=1 go test -race -timeout $(TESTTIMEOUT) ./...

test-fuse: ## the tests that mount; a missing device is a failure
	LAYERFS_TEST_REQUIRE=$${LAYERFS_TEST_REQUIRE:+$$LAYERFS_TEST_REQUIRE,}fuse \
		go test -timeout $(TESTTIMEOUT) -count=1 ./fs/... ./cmd/... ./internal/...

# SOAKKILL=10s kills a serving process every ten seconds.
soak: ## random work of many processes in mounts for SOAKTIME (15m) as root, and as a user
	LAYERFS_TEST_SOAK=$(SOAKTIME) LAYERFS_TEST_SOAK_KILL=$(SOAKKILL) \
		go test -timeout 0 -count=1 -v -run '^TestSoak$$' ./internal/mounttest

# What goes wrong below a store: disks that refuse, kills, power failures. FAULTS is how
# many places are tried for each operation and trouble, or "all" of them.
FAULTS ?= 40
test-faults: ## many faults, kills and power failures, as root; FAULTS=all takes an hour
	LAYERFS_TEST_FAULTS=$(FAULTS) LAYERFS_TEST_REQUIRE=$${LAYERFS_TEST_REQUIRE:+$$LAYERFS_TEST_REQUIRE,}fuse,root \
		go test -timeout 4h -count=1 -v ./internal/faultfs ./internal/faulttest
	LAYERFS_TEST_KILLS=100 go test -timeout 1h -count=1 -v -run Kill ./internal/mounttest

test-heavy: ## the tests that take minutes and gigabytes
	LAYERFS_TEST_HEAVY=1 go test -timeout 0 -count=1 -v -run '^(TestMillionFiles)$$' ./internal/mounttest

# Exit code 3 of govulncheck is about what it has found; others are about itself.
vulncheck: $(GOVULNCHECK) ## known weaknesses in what is built in; needs the Go vulnerability database
	@$(GOVULNCHECK) -db $(GOVULNDB) -tags $(TAGS) ./...; code=$$?; \
	case $$code in 0|3) ;; *) echo "vulncheck: nothing was checked: the Go vulnerability database cannot be read from here; set GOVULNDB to a copy of it (file:///DIR) or run this where there is a network" >&2;; esac; \
	exit $$code

# go test fuzzes one target at a time.
fuzz: ## every fuzz target for FUZZTIME (30s)
	@set -e; grep -rlE '^func Fuzz' --include='*_test.go' . | while read -r file; do \
		for target in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' "$$file"); do \
			echo "== $$(dirname "$$file") $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x "$$(dirname "$$file")" </dev/null; \
		done; \
	done

bench: build ## compare with the programs that are installed; BENCHFLAGS are passed on
	go run ./internal/bench $(BENCHFLAGS)

lint: $(STATICCHECK) $(GOFUMPT) ## vet, staticcheck, gofumpt and the rules of the repository
	go vet ./...
	$(STATICCHECK) ./...
	@files=$$($(GOFUMPT) -l .); if [ -n "$$files" ]; then echo "gofumpt: run make fmt for:"; echo "$$files"; exit 1; fi
	go test ./internal/lint

fmt: $(GOFUMPT) ## format the source
	$(GOFUMPT) -w .

$(STATICCHECK):
	GOBIN=$(TOOLS) go install honnef.co/go/tools/cmd/staticcheck@v0.8.2 && mv $(TOOLS)/staticcheck $@

$(GOFUMPT):
	GOBIN=$(TOOLS) go install mvdan.cc/gofumpt@v0.12.0 && mv $(TOOLS)/gofumpt $@

$(GOVULNCHECK):
	GOBIN=$(TOOLS) go install golang.org/x/vuln/cmd/govulncheck@v1.9.0 && mv $(TOOLS)/govulncheck $@

demo: build ## install what is missing, build an image from Debian packages, load and mount it
	testdata/images/demo.sh

demo-clean: ## unmount and remove the demo
	testdata/images/demo.sh --clean

clean: ## remove what was built
	rm -rf bin .cache

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20
