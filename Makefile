# `make` says what there is. Everything that is built or downloaded goes to one cache outside of the work tree, which all
# clones share, and cargo is always asked for the whole workspace, so that no crate is compiled with two sets of features.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

export AWSDEPLOY_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/aws-deploy-user-operator
export CARGO_TARGET_DIR ?= $(AWSDEPLOY_CACHE)/target
export CARGO_TERM_COLOR ?= auto

OPERATOR := $(CARGO_TARGET_DIR)/debug/aws-deploy-user-operator
CRDS := awsdeployusers awsdeployuserclasses
CHART_CRDS := charts/aws-deploy-user-operator/crd-files
METRICS := docs/metrics.md
README := charts/aws-deploy-user-operator/README.md
# What was a test's last word, and of which test program.
CLOSING := ^ *(Running|Doc-tests) |^model: |^test result: |^[0-9]+ runs with faults|^Ran [0-9]+ test|^OK|^FAILED

.PHONY: help
help: ## What there is
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { sub(/:.*/, "", $$1); printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Cache: $(AWSDEPLOY_CACHE) (AWSDEPLOY_CACHE; can be removed at any time)"

.PHONY: demo
demo: cluster build ## The main job on a real Kubernetes API and an AWS emulator, step by step; 2 minutes when built
	@demo/run

.PHONY: test
test: cluster build check-generated lint ## All tests, and all checks of lint and check-generated
	@log=$$(mktemp); trap 'rm -f "$$log"' EXIT; failed=''; \
	cargo test --workspace --locked --no-fail-fast 2>&1 | tee "$$log" || failed='cargo test'; \
	tests/chart/run --control-plane 2>&1 | tee -a "$$log" || failed+=' tests/chart/run'; \
	printf '\n== In short\n'; grep -E '$(CLOSING)' "$$log" || true; \
	if [ -n "$$failed" ]; then echo "make test: failed: $$failed"; exit 1; fi; \
	echo 'make test: ok'

.PHONY: lint
lint: preflight ## Formatting, clippy with no warning allowed, shellcheck if there is one
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@if command -v shellcheck >/dev/null; then \
		scripts=$$(git ls-files --cached --others --exclude-standard | xargs -d '\n' grep -lsE '^#!.*\b(ba)?sh$$'); \
		echo shellcheck $$scripts; shellcheck $$scripts; \
	else echo 'shellcheck: not on PATH, skipped'; fi

.PHONY: generate
generate: build ## Write the files that follow from others: the CRDs, the chart's copy of them, the reference of metrics, the chart's README
	@for kind in $(CRDS); do \
		file=awsdeploy.dev_$$kind.yaml; \
		$(OPERATOR) crds $$kind >crds/$$file.new; mv crds/$$file.new crds/$$file; cp crds/$$file $(CHART_CRDS)/; \
		echo "wrote crds/$$file $(CHART_CRDS)/$$file"; \
	done
	@$(OPERATOR) metrics >$(METRICS).new
	@mv $(METRICS).new $(METRICS)
	@echo 'wrote $(METRICS)'
	@tests/chart/readme >$(README).new
	@mv $(README).new $(README)
	@echo 'wrote $(README)'

.PHONY: check-generated
check-generated: build ## Fail if these files are not what `make generate` would write
	@for kind in $(CRDS); do for folder in crds $(CHART_CRDS); do \
		file=$$folder/awsdeploy.dev_$$kind.yaml; \
		diff -u "$$file" <($(OPERATOR) crds $$kind) || { echo "$$file does not follow from the code: run make generate"; exit 1; }; \
	done; done
	@diff -u $(METRICS) <($(OPERATOR) metrics) || { echo '$(METRICS) does not follow from the code: run make generate'; exit 1; }
	@readme=$$(mktemp); trap 'rm -f "$$readme"' EXIT; tests/chart/readme >"$$readme"; \
	diff -u $(README) "$$readme" || { echo '$(README) does not follow from values.yaml and README.md.gotmpl: run make generate'; exit 1; }
	@echo 'generated files: up to date'

# Cargo tells the crates of two clones that share a target directory apart by nothing but the age of their files, and would
# take the one clone's build for the other's. So a clone that was not the last one to build makes its sources young.
.PHONY: build
build: preflight ## Operator, test rig and tests
	@last='$(CARGO_TARGET_DIR)/last-clone'; \
	if [ "$$(cat "$$last" 2>/dev/null)" != '$(CURDIR)' ]; then \
		git ls-files -z '*.rs' | xargs -0 touch; mkdir -p '$(CARGO_TARGET_DIR)'; echo '$(CURDIR)' >"$$last"; fi
	cargo build --workspace --all-targets --locked

.PHONY: cluster
cluster: preflight ## Kubernetes, etcd, helm and the AWS emulator: found, or built once
	@tests/cluster/build >/dev/null

.PHONY: preflight
preflight:
	@missing=(); \
	need() { command -v "$$1" >/dev/null || missing+=("$$1: $$2"); }; \
	need git 'Debian and Ubuntu: apt-get install git'; \
	need cc 'a C compiler; Debian and Ubuntu: apt-get install build-essential'; \
	need cargo "Rust $$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml), best by rustup (https://rustup.rs)"; \
	need python3 '3.11 or later; Debian and Ubuntu: apt-get install python3 python3-venv'; \
	if command -v python3 >/dev/null && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then \
		missing+=('python3-venv: Debian and Ubuntu: apt-get install python3-venv'); fi; \
	if ! compgen -G '$(AWSDEPLOY_CACHE)/cluster/set-*/env' >/dev/null && [ -z "$${KUBEBUILDER_ASSETS:-}" ]; then \
		need go "$$(sed -n 's/^go //p' tests/cluster/go.mod) or later, builds Kubernetes once (https://go.dev/dl)"; fi; \
	if [ "$${#missing[@]}" -gt 0 ]; then \
		echo 'These tools are missing:' >&2; printf '  %s\n' "$${missing[@]}" >&2; exit 1; fi

include tests/faults/targets.mk
include tests/model/targets.mk
include tests/bench/targets.mk
include tests/e2e/targets.mk
include tests/dashboard/targets.mk
