# Everything a developer does has a verb here. `make` alone lists them.
#
# They need Rust, Go and a C compiler; `conformance` also Python 3.11, Node 20, a JDK 17, Maven, curl and openssl. Each says
# what is missing.

# The programs of a real control plane: KUBEBUILDER_ASSETS where it is set, else built once into a cache.
CONTROL_PLANE := tests/control-plane/build
WITH_CONTROL_PLANE = assets=$$($(CONTROL_PLANE)) && KUBEBUILDER_ASSETS=$$assets
# Tests on a real control plane mostly wait: more of them than cores fit beside each other.
RUST_TEST_THREADS ?= 8
# How much garbage an API server may have before it collects it, in percent of what it uses: it has memory to spare.
GOGC ?= 400

.DEFAULT_GOAL := help
.PHONY: help
help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## see it all on a real API server; KEEP=1 leaves it running
	@$(CONTROL_PLANE) >/dev/null
	cargo build --locked --bin appreg --example demo
	@$(WITH_CONTROL_PLANE) cargo run --locked --quiet --example demo

.PHONY: test
test: check ## check, then all tests, those on a real control plane included
	$(WITH_CONTROL_PLANE) RUST_TEST_THREADS=$(RUST_TEST_THREADS) GOGC=$(GOGC) cargo test --locked --lib --bins --tests --examples

# Python's, Node's, Go's and Java's packages, pinned; installed into a cache.
CONFORMANCE := tests/conformance/build

.PHONY: conformance
conformance: ## curl, Python, Node, Go, Java and Rust clients and APIs that nobody here wrote; about 3 minutes after the build
	@$(CONFORMANCE) >/dev/null
	@$(CONTROL_PLANE) >/dev/null
	cargo build --locked --bin appreg --example conformance
	@packages=$$($(CONFORMANCE)) && $(WITH_CONTROL_PLANE) cargo run --locked --quiet --example conformance -- "$$packages"

.PHONY: check
check: ## formatting and lints, warnings refused
	cargo fmt --check
	cargo clippy --locked --all-targets -- --deny warnings

# How long each target is fuzzed, and which are; empty is all.
SECONDS ?= 60
TARGETS ?=
.PHONY: fuzz
fuzz: ## libFuzzer on every parser that meets the network, a minute each; SECONDS=10 TARGETS='form basic'
	@fuzz/run $(SECONDS) $(TARGETS)

.PHONY: generate
generate: ## write crds/ and docs/reference/ from src/api/
	cargo run --locked --quiet --bin appreg -- crds --output crds
	cargo run --locked --quiet --bin appreg -- reference --output docs/reference

.PHONY: chart
chart: ## lint the chart, and render it with its default values
	@$(WITH_CONTROL_PLANE) && "$$assets/helm" lint --strict charts/appreg
	@$(WITH_CONTROL_PLANE) && "$$assets/helm" template appreg charts/appreg >/dev/null

.PHONY: control-plane
control-plane: ## build kube-apiserver, etcd, kubectl, helm into a cache (once, about 8 minutes on 2 cores)
	@$(CONTROL_PLANE)

.PHONY: bench bench-registrations bench-policies bench-token
bench: bench-registrations bench-policies bench-token ## all figures, printed and not asserted

bench-registrations: ## registrations until Ready, beside what the API server allows; ARGS='n=1000 rounds=3'
	$(WITH_CONTROL_PLANE) cargo bench --locked --bench registrations -- $(ARGS)

bench-policies: ## what a decision costs under 1, 100 and 1,000 policies, and what an edit sets in motion; ARGS='n=10000'
	$(WITH_CONTROL_PLANE) cargo bench --locked --bench policies -- $(ARGS)

bench-token: ## the token service on one core, beside the bare signature; ARGS='only=overload seconds=5 rounds=2'
	$(WITH_CONTROL_PLANE) cargo bench --locked --bench tokens -- $(ARGS)
