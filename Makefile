# The commands of this project. `make` alone lists them.

GO ?= go
FUZZTIME ?= 60s

# Where make install puts things, and the version of make deb and make release.
PREFIX ?= /usr/local
ROOT = $(DESTDIR)$(PREFIX)
COMPLETIONS = share/bash-completion/completions share/zsh/site-functions share/fish/vendor_completions.d
VERSION ?= 0.0.0
OUT = $(CURDIR)/out
# Not a tool of go.mod: it needs some hundred modules.
NFPM ?= $(GO) run github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.43.0
PODMAN ?= podman

# The programs need no C: static binaries start faster and run anywhere.
BIN = bin
BUILD = CGO_ENABLED=0 $(GO) build -o $(BIN)/

# fpurestore works on linux/amd64 only.
PLATFORM := $(shell $(GO) env GOOS)/$(shell $(GO) env GOARCH)
PROGRAMS = fpuimg $(if $(filter linux/amd64,$(PLATFORM)),fpurestore)

# The race detector needs a C compiler; without one the tests run all the same.
RACE := $(shell command -v "$$($(GO) env CC)" >/dev/null 2>&1 && echo -race)

# It finds nothing where there is one goroutine, and takes up to ten times as long. Of these
# packages it has the tests TestConcurrent, which run what starts goroutines, and others from
# several goroutines.
# Those that take longest come first.
SERIAL = ./cmd/fpuimg ./cmd/fpurestore/internal/... ./convert/... ./codec/... ./cmd/internal/...
CONCURRENT = $(addprefix ./,$(sort $(dir $(shell grep -rl --include='*_test.go' 'func TestConcurrent' cmd codec convert internal vmtest))))

# Packages whose tests take -update, and pairs of fuzz target and package.
GOLDEN = $(sort $(dir $(shell grep -rl --include='*_test.go' -e 'testcmd.Golden' -e 'testcmd.Script' cmd codec convert internal)))
DEMO = testdata/images/h-avx512

.PHONY: help
help: ## list the targets
	@awk -F ': .*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build the programs into bin/
	$(BUILD) ./cmd/...

.PHONY: demo
demo: ## build, and show a real AVX-512 checkpoint and its registers
	@$(BUILD) ./cmd/fpuimg
	bin/fpuimg show $(DEMO)
	@echo
	bin/fpuimg show --regs $(DEMO)

.PHONY: test
test: ## run all tests but those of vmtest, at all points where a program may be cut off, and count what was skipped; with the race detector where there is a C compiler
	@export GORACE="$${GORACE:-atexit_sleep_ms=0}" FPU_POINTS=all; serial=$$($(GO) list $(SERIAL)); \
	tested() { $(GO) test -json -timeout 30m -skip 'VM$$' "$$@" || echo "go test ended with exit code $$?"; }; \
	events=$$(mktemp) && trap 'rm -f "$$events"' EXIT && { \
		tested $$serial >"$$events" & \
		tested $(RACE) $$($(GO) list ./... | grep -vxF "$$serial"); \
		wait; cat "$$events"; \
		tested $(RACE) -run '^TestConcurrent' $(CONCURRENT); \
	} | $(GO) run ./internal/test/summary

.PHONY: check
check: lint vuln check-generated cross test ## all that continuous integration checks

.PHONY: lint
lint: ## gofmt, go vet, staticcheck, and mandoc on the man pages
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then \
		echo "not formatted by gofmt:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) vet -tags release ./cmd/fpuimg
	cd bench && $(GO) vet ./...
	cd endtoend && $(GO) vet ./...
	$(GO) tool staticcheck ./...
	@if command -v mandoc >/dev/null; then echo mandoc -Tlint man/*.1; mandoc -Tlint man/*.1; \
		else echo "mandoc is not installed: the man pages are not checked"; fi

.PHONY: vuln
vuln: ## look for known vulnerabilities in what the programs call, where the database answers
	@out=$$($(GO) tool govulncheck ./... 2>&1); status=$$?; echo "$$out"; \
	case $$out in *"fetching vulnerabilities"*) echo "the database of vulnerabilities does not answer: nothing was checked";; \
		*) exit $$status;; esac

.PHONY: generate
generate: ## write generated files anew: man pages, shell completions
	$(GO) generate ./...

.PHONY: check-generated
check-generated: ## fail if make generate would change a file
	@state() { git diff HEAD; git ls-files --others --exclude-standard | git hash-object --stdin-paths; }; \
	before=$$(state) && $(GO) generate ./... && after=$$(state) && \
	if [ "$$before" != "$$after" ]; then \
		echo "generated files are out of date; make generate changes them:"; git status --short; exit 1; fi

.PHONY: cross
cross: ## build and vet where fpuimg must run besides linux/amd64
	@for os in darwin linux; do \
		echo "GOOS=$$os GOARCH=arm64"; \
		GOOS=$$os GOARCH=arm64 $(GO) build -o /dev/null ./cmd/fpuimg && \
		GOOS=$$os GOARCH=arm64 $(GO) vet ./... || exit 1; \
	done

.PHONY: fuzz
fuzz: ## run each fuzz target for a minute; FUZZTIME=10s for less
	@for dir in . bench; do (cd $$dir && for pkg in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			echo "$$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
		done; \
	done) || exit 1; done

.PHONY: fuzz-long
fuzz-long: ## the same for ten minutes each, for the night
	$(MAKE) fuzz FUZZTIME=10m

.PHONY: golden
golden: ## rewrite the golden files; look at the diff
	$(GO) test $(addprefix ./,$(GOLDEN)) -update

.PHONY: bench
bench: ## compare speed and memory with reading, copying, go-criu and crit
	cd bench && $(GO) run ./fleet $(BENCH)
	cd bench && $(GO) test -run '^$$' -bench . -benchmem

FPU_VM_TABLE ?= out/vm-matrix.tsv
VMTIMEOUT ?= 60m

.PHONY: vmtest
vmtest: ## compare what check predicts with what CRIU does in guests of unlike CPUs, run fpurestore's tests there; installs Debian packages as root
	FPU_VM=1 FPU_VM_INSTALL=1 FPU_VM_TABLE=$(abspath $(FPU_VM_TABLE)) $(GO) test -count=1 -p 1 -timeout $(VMTIMEOUT) -run 'VM$$' -skip '^TestRecordingsVM$$' ./vmtest/...
	@cat $(basename $(FPU_VM_TABLE))*.txt

.PHONY: vmtest-all
vmtest-all: ## the same with every machine in every table
	FPU_VM_ALL=1 $(MAKE) vmtest VMTIMEOUT=4h

.PHONY: vmtest-level
vmtest-level: ## level the recordings for the guests' CPU models and restore them there, where they lie beside the project
	FPU_VM=1 FPU_VM_INSTALL=1 FPU_VM_TABLE=$(abspath $(FPU_VM_TABLE)) $(GO) test -count=1 -timeout 4h -run '^TestRecordingsVM$$' -v ./vmtest

.PHONY: endtoend
endtoend: ## try the page of check --html in chromium, need on the matcher of Kubernetes' scheduler, and the manifests of deploy
	cd endtoend && $(GO) test -count=1 -v ./...

.PHONY: cluster
cluster: ## try deploy and need on a real kube-apiserver and kube-scheduler; building them takes half an hour
	cd endtoend/cluster && $(GO) test -count=1 -v ./...

.PHONY: outcomes
outcomes: ## hold check --root against every recorded restore, where the recordings lie beside the project
	FPU_OUTCOMES=all $(GO) test -count=1 -v -run '^TestOutcomes$$' ./cmd/fpuimg

.PHONY: install
install: build ## install programs, man pages, completions and licence; PREFIX=/usr/local DESTDIR=
	install -d $(addprefix $(ROOT)/,bin share/man/man1 share/doc/fpuimg $(COMPLETIONS))
	for p in $(PROGRAMS); do \
		install -m 755 $(BIN)/$$p $(ROOT)/bin/ && \
		install -m 644 man/$$p*.1 $(ROOT)/share/man/man1/ && \
		install -m 644 completions/$$p.bash $(ROOT)/share/bash-completion/completions/$$p && \
		install -m 644 completions/_$$p $(ROOT)/share/zsh/site-functions/_$$p && \
		install -m 644 completions/$$p.fish $(ROOT)/share/fish/vendor_completions.d/$$p.fish || exit 1; \
	done
	ln -sf fpuimg $(ROOT)/bin/checkpointctl-fpu
	install -m 644 LICENSE $(ROOT)/share/doc/fpuimg/copyright

.PHONY: deb
deb: ## build a Debian package in out/; VERSION=0.1.0
	rm -rf $(OUT)/deb && $(MAKE) install PREFIX=/usr DESTDIR=$(OUT)/deb
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) ROOT=$(OUT)/deb VERSION=$(VERSION) ARCH=$(notdir $(PLATFORM)) GOOS= GOARCH= \
		$(NFPM) package --packager deb --config nfpm.yaml --target $(OUT)/

RELEASE = $(OUT)/release
SAME_TAR = tar --sort=name --format=gnu --owner=0 --group=0 --numeric-owner --mtime=@$$(git log -1 --format=%ct)

.PHONY: release
release: ## build what a release holds in out/release, the same bytes each time; VERSION=0.1.0, which is tagged
	@test -z "$$(git status --porcelain)" && git tag --points-at HEAD | grep -qx v$(VERSION) && \
	grep -q 'Release  *= "$(VERSION)"' cmd/internal/cli/version.go || { \
		echo "make release VERSION=X takes a clean checkout of tag vX whose version.go and CHANGELOG.md say X"; exit 1; }
	rm -rf $(RELEASE) && mkdir -p $(RELEASE)
	for platform in linux/amd64 linux/arm64 darwin/arm64; do \
		export GOOS=$${platform%/*} GOARCH=$${platform#*/} GOFLAGS=-trimpath; \
		name=fpuimg-$(VERSION)-$$GOOS-$$GOARCH; tree=$(OUT)/tree; rm -rf $$tree && \
		$(MAKE) install BIN=$(OUT)/bin-$$GOOS-$$GOARCH PREFIX= DESTDIR=$$tree/$$name && \
		$(SAME_TAR) -C $$tree -cf - $$name | gzip -9n >$(RELEASE)/$$name.tar.gz && \
		{ test $$GOOS != linux || $(MAKE) deb BIN=$(OUT)/bin-$$GOOS-$$GOARCH; } || exit 1; \
	done
	mv $(OUT)/fpuimg_$(VERSION)_*.deb $(RELEASE)/
	cd $(RELEASE) && sha256sum * >SHA256SUMS && cat SHA256SUMS

.PHONY: release-test
release-test: ## build a release twice, compare, unpack and run it
	NFPM="$(NFPM)" $(GO) test -count=1 -timeout 30m -tags release ./cmd/fpuimg -run TestRelease

.PHONY: image
image: ## build a container image of the programs; PODMAN=docker
	rm -rf $(OUT)/image
	GOOS=linux CGO_ENABLED=0 $(GO) build -trimpath -o $(OUT)/image/bin/ ./cmd/...
	install -m 644 Containerfile LICENSE $(OUT)/image/
	$(PODMAN) build -t fpuimg -f $(OUT)/image/Containerfile $(OUT)/image

.PHONY: clean
clean: ## remove what was built
	rm -rf bin out
