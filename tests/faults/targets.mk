# The fault runs. `make faults` runs all and writes the fault matrix; `.ci/run` runs a short set after `make test`.
export FAULT_MATRIX ?= $(AWSDEPLOY_CACHE)/fault-matrix.md

.PHONY: faults
faults: cluster build ## Every fault at every call, bad weather, seeded combinations; ONLY=<text> runs some
	@FAULTS=all cargo test --workspace --locked --test faults; echo "fault matrix: $(FAULT_MATRIX)"

.PHONY: faults-short
faults-short: cluster build ## A short set of fault runs
	@FAULTS=short cargo test --workspace --locked --test faults

.PHONY: soak
soak: cluster build ## 1,000 rotations with random faults; SOAK=<n> changes the number
	@SOAK=$${SOAK:-1000} cargo test --workspace --locked --test faults
