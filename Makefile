# Everything a developer does has a verb here. `make` alone lists them.
#
# They need Rust, Go and a C compiler; each says what is missing.

# The programs of a real control plane: KUBEBUILDER_ASSETS where it is set, else built once into a cache.
CONTROL_PLANE := tests/control-plane/build

.DEFAULT_GOAL := help
.PHONY: help
help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: test
test: check ## check, then all tests, those on a real control plane included
	assets=$$($(CONTROL_PLANE)) && KUBEBUILDER_ASSETS=$$assets cargo test --locked --all-targets

.PHONY: check
check: ## formatting and lints, warnings refused
	cargo fmt --check
	cargo clippy --locked --all-targets -- --deny warnings

.PHONY: control-plane
control-plane: ## build kube-apiserver, etcd, kubectl, helm into a cache (once, about 8 minutes on 2 cores)
	@$(CONTROL_PLANE)

.PHONY: bench bench-registrations bench-tokens
bench: bench-registrations bench-tokens ## all figures, printed and not asserted (about 10 minutes after the build)

bench-registrations: ## registrations until Ready, beside what the API server allows; ARGS='n=1000 rounds=3'
	assets=$$($(CONTROL_PLANE)) && KUBEBUILDER_ASSETS=$$assets cargo bench --locked --bench registrations -- $(ARGS)

bench-tokens: ## tokens per second on one core, beside the bare signature; ARGS='clients=1000 seconds=10 rounds=3'
	assets=$$($(CONTROL_PLANE)) && KUBEBUILDER_ASSETS=$$assets cargo bench --locked --bench tokens -- $(ARGS)
