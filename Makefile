# `make` lists the targets. Everything that is built or downloaded goes to one cache outside of the work tree, shared by all
# clones. Cargo always builds the whole workspace, so that no crate is compiled twice with different features.

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
PAGES := api flags metrics reasons
REFERENCE := docs/reference
README := charts/aws-deploy-user-operator/README.md
# Lines of the summary: test programs and their results.
SUMMARY := ^ *(Running|Doc-tests) |^model: |^test result: |^(attack|faults|bench): skipped|^fuzz|^Ran [0-9]+ test|^OK|^FAILED

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { sub(/:.*/, "", $$1); printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Cache: $(AWSDEPLOY_CACHE) (set AWSDEPLOY_CACHE to change it; safe to delete)"

.PHONY: demo
demo: cluster build ## Demo on a real Kubernetes API server and an AWS emulator, step by step (2 minutes)
	@demo/run

.PHONY: test
test: cluster build check-generated lint ## All tests but attack-short and faults-short, lint and check-generated (15 minutes)
	@log=$$(mktemp); trap 'rm -f "$$log"' EXIT; failed=''; \
	cargo test --workspace --locked --no-fail-fast 2>&1 | tee "$$log" || failed='cargo test'; \
	tests/chart/run --control-plane 2>&1 | tee -a "$$log" || failed+=' tests/chart/run'; \
	printf '\n== Summary\n'; grep -E '$(SUMMARY)' "$$log" || true; \
	if [ -n "$$failed" ]; then echo "make test: failed: $$failed"; exit 1; fi; \
	echo 'make test: ok'

.PHONY: lint
lint: preflight ## Check formatting, clippy (warnings are errors), shellcheck if installed, links and line lengths of the documentation
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@if command -v shellcheck >/dev/null; then \
		scripts=$$(git ls-files --cached --others --exclude-standard | xargs -d '\n' grep -lsE '^#!.*\b(ba)?sh$$'); \
		echo shellcheck $$scripts; shellcheck $$scripts; \
	else echo 'shellcheck: not on PATH, skipped'; fi
	@tests/docs/check_links.py
	@tests/docs/check_lines.py

.PHONY: docs
docs: preflight ## Build the documentation as a book and check its links
	@tests/docs/check_links.py
	@tests/docs/build

.PHONY: generate
generate: build ## Generate CRDs, their copy in the chart, docs/reference and the chart README
	@for kind in $(CRDS); do \
		file=awsdeploy.dev_$$kind.yaml; \
		$(OPERATOR) crds $$kind >crds/$$file.new; mv crds/$$file.new crds/$$file; cp crds/$$file $(CHART_CRDS)/; \
		echo "wrote crds/$$file $(CHART_CRDS)/$$file"; \
	done
	@for page in $(PAGES); do \
		$(OPERATOR) reference $$page >$(REFERENCE)/$$page.md.new; mv $(REFERENCE)/$$page.md.new $(REFERENCE)/$$page.md; \
		echo "wrote $(REFERENCE)/$$page.md"; \
	done
	@tests/chart/readme >$(README).new
	@mv $(README).new $(README)
	@echo 'wrote $(README)'

.PHONY: service-reference
service-reference: ## Update the list of AWS actions that policy documents are checked with, from PyPI; not part of generate
	@tests/service_reference/update.py

.PHONY: check-generated
check-generated: build ## Fail if the generated files are out of date
	@for kind in $(CRDS); do for folder in crds $(CHART_CRDS); do \
		file=$$folder/awsdeploy.dev_$$kind.yaml; \
		diff -u "$$file" <($(OPERATOR) crds $$kind) || { echo "$$file is out of date: run make generate"; exit 1; }; \
	done; done
	@for page in $(PAGES); do \
		diff -u $(REFERENCE)/$$page.md <($(OPERATOR) reference $$page) || { echo "$(REFERENCE)/$$page.md is out of date: run make generate"; exit 1; }; \
	done
	@readme=$$(mktemp); trap 'rm -f "$$readme"' EXIT; tests/chart/readme >"$$readme"; \
	diff -u $(README) "$$readme" || { echo '$(README) is out of date: run make generate'; exit 1; }
	@echo 'generated files: up to date'

.PHONY: dist
dist: cluster ## Write install.yaml, JSON schemas of the CRDs and the packaged chart to dist/
	@charts/dist

# With a shared target directory, cargo distinguishes the crates of two clones only by file timestamps and would reuse the build
# of the wrong clone. A clone that was not the last to build therefore touches its sources.
.PHONY: build
build: preflight ## Build the operator, the test kit and the tests
	@last='$(CARGO_TARGET_DIR)/last-clone'; \
	if [ "$$(cat "$$last" 2>/dev/null)" != '$(CURDIR)' ]; then \
		git ls-files -z '*.rs' | xargs -0 touch; mkdir -p '$(CARGO_TARGET_DIR)'; echo '$(CURDIR)' >"$$last"; fi
	cargo build --workspace --all-targets --locked

.PHONY: cluster
cluster: preflight ## Find or build Kubernetes, etcd, helm and the AWS emulator
	@tests/cluster/build >/dev/null

.PHONY: preflight
preflight:
	@missing=(); \
	need() { command -v "$$1" >/dev/null || missing+=("$$1: $$2"); }; \
	need git 'Debian and Ubuntu: apt-get install git'; \
	need cc 'a C compiler; Debian and Ubuntu: apt-get install build-essential'; \
	need cargo "Rust $$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml), preferably with rustup (https://rustup.rs)"; \
	need python3 '3.11 or later; Debian and Ubuntu: apt-get install python3 python3-venv'; \
	if command -v python3 >/dev/null && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then \
		missing+=('python3-venv: Debian and Ubuntu: apt-get install python3-venv'); fi; \
	if ! compgen -G '$(AWSDEPLOY_CACHE)/cluster/set-*/env' >/dev/null && [ -z "$${KUBEBUILDER_ASSETS:-}" ]; then \
		need go "$$(sed -n 's/^go //p' tests/cluster/go.mod) or later, to build Kubernetes once (https://go.dev/dl)"; fi; \
	if [ "$${#missing[@]}" -gt 0 ]; then \
		echo 'These tools are missing:' >&2; printf '  %s\n' "$${missing[@]}" >&2; exit 1; fi

include tests/attack/targets.mk
include tests/faults/targets.mk
include tests/model/targets.mk
include tests/bench/targets.mk
include tests/e2e/targets.mk
include tests/dashboard/targets.mk
