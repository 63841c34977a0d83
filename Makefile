# The first target lists the others. Everything that is slow to make is cached by version in $(CACHE), outside the checkout.

CACHE       ?= $(or $(MAILROUTE_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/mailroute)
SETUP       := tests/cluster/setup
CARGO       ?= cargo
BUILT       := $(or $(CARGO_TARGET_DIR),target)/debug
# Where `tests/images demo` leaves the programs and images of the demo.
DEMO        := target/images/demo

# The minor version of Kubernetes that clusters have: the newest, or the oldest that is supported.
KUBERNETES  ?=
# A filter of nextest: which tests.
TESTS       ?= all()

export MAILROUTE_CACHE := $(CACHE)
export MAILROUTE_KUBERNETES := $(KUBERNETES)
export PATH := $(CACHE)/bin:$(PATH)

.DEFAULT_GOAL := help
# The order of what a target needs is meant, under -j too: the quick questions first.
.NOTPARALLEL:
.PHONY: help demo demo-down try test check lint doc docs crds drift pictures images bench bench-scale attacks fuzz release preflight tools demo-tools cluster-tools harness rust clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' | awk -F'|' '{printf "  make %-12s %s\n", $$1, $$2}'

demo: preflight rust demo-tools ## the main job: a throw-away Kubernetes, the chart, one message to (simulated) Microsoft 365. KEEP=1 leaves it up
	@tests/images demo
	@MAILROUTE_IMAGES=$(CURDIR)/$(DEMO) $(DEMO)/demo $(if $(KEEP),--keep)

demo-down: ## remove what `make demo KEEP=1` left up
	@[ -x $(DEMO)/cluster ] || { echo 'error: no demo was built in this checkout'; exit 1; } >&2
	@$(DEMO)/cluster down --name demo

try: rust ## the sidecar and the simulator alone on this computer: a message to localhost:2525 (PORT=, METHOD=Graph, KEEP=1)
	@echo 'building the sidecar and the simulator (a minute or two the first time) …'
	@$(CARGO) build --quiet -p mailroute-sidecar --example try
	@$(BUILT)/examples/try $(if $(PORT),--port $(PORT)) $(if $(METHOD),--method $(METHOD)) $(if $(KEEP),--keep)

test: preflight rust cluster-tools tools images ## every test, those on a real cluster included (root). KUBERNETES=1.33: on the oldest version; TESTS=filter
	@$(CARGO) nextest run --workspace --no-run
	@MAILROUTE_OPERATOR=$(CURDIR)/target/images/mailroute-operator MAILROUTE_SIDECAR=$(CURDIR)/target/images/mailroute-sidecar \
		$(BUILT)/cluster run --tier node -- $(CARGO) nextest run --workspace -E '$(TESTS)'
	@$(BUILT)/secrets target/nextest/default/junit.xml

check: tools lint ## all that needs neither a cluster nor root, in minutes
	@$(CARGO) nextest run --workspace --profile check

lint: rust ## format and clippy, warnings denied
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --workspace --all-targets -- -D warnings

doc: ## API documentation, warnings denied
	@RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items

docs: rust ## the documentation as a site, with search: target/site/html/index.html
	@$(SETUP) docs
	@docs/site/build target/site

crds: ## write the generated files again: crds/, charts/mailroute-crds, docs/reference
	@$(CARGO) run --quiet -p mailroute-docgen -- --write

drift: ## fail when a generated file differs from the code
	@$(CARGO) run --quiet -p mailroute-docgen -- --check

pictures: rust ## make the pictures of the README again: docs/pictures (root)
	@$(SETUP) pictures
	@$(CARGO) run --quiet -p e2e --bin pictures -- docs/pictures

images: demo-tools ## container images, as archives in target/images
	@tests/images

# Its secrets come from the environment and are on no command line: SIGNING_KEY with COSIGN_PASSWORD, REGISTRY_USERNAME with REGISTRY_PASSWORD.
release: rust demo-tools ## images, charts and plugin with SBOM, provenance and checksums; REGISTRY=host/path signs and pushes them (PLATFORMS=)
	@$(SETUP) release
	@PLATFORMS='$(PLATFORMS)' REGISTRY='$(REGISTRY)' release/make

# What is measured are the programs as they are shipped, and nothing else should run meanwhile.
attacks: preflight rust cluster-tools images ## what one tenant can do to the others: eleven attacks, their cost to the others' mail and admission (ten minutes, root)
	@MAILROUTE_OPERATOR=$(CURDIR)/target/images/mailroute-operator MAILROUTE_SIDECAR=$(CURDIR)/target/images/mailroute-sidecar \
		$(CARGO) test --quiet --workspace --test attacks no_attack -- --ignored --nocapture

# The operator and its load come before the API server on the cores they share: elsewhere that is another machine.
bench: preflight rust cluster-tools images harness ## sidecar and gateway beside Postfix, and the operator with 1 000 routes: latency, memory, throughput (ONLY=text, root)
	@$(CARGO) build --quiet --profile bench -p mailroute-bench
	@$(or $(CARGO_TARGET_DIR),target)/release/bench --sidecar target/images/mailroute-sidecar --peers $(CACHE)/peers-1/root --only '$(ONLY)' $(if $(PLOTS),--plots '$(PLOTS)')
	@$(BUILT)/cluster run --tier control-plane -- chrt --rr 1 $(BUILT)/bench-operator --operator target/images/mailroute-operator

bench-scale: preflight rust images ## the operator with up to 10 000 routes and 50 000 pods: memory, times, processors, and docs/pictures/scale.svg
	@$(CARGO) build --quiet --profile bench -p e2e --bin bench-scale
	@$(or $(CARGO_TARGET_DIR),target)/release/bench-scale --operator target/images/mailroute-operator --picture docs/pictures/scale.svg

fuzz: ## every fuzz target for SECONDS each (10)
	@CARGO_TARGET_DIR=$(CACHE)/fuzz sidecar/fuzz/run $(or $(SECONDS),10)

preflight:
	@tests/cluster/preflight

tools: rust
	@$(SETUP) tools

demo-tools:
	@$(SETUP) demo

cluster-tools:
	@$(SETUP) cluster

harness: rust
	@echo 'the harness: building, a minute or two after a change …'
	@$(CARGO) build --quiet -p e2e --bins

rust:
	@$(CARGO) --version >/dev/null || { echo 'error: no working `$(CARGO)` on the PATH'; \
		echo '  remedy: install Rust with rustup (https://rustup.rs); rust-toolchain.toml names the version'; exit 1; } >&2

clean: ## remove what was built in the checkout (the cache stays)
	@$(CARGO) clean
