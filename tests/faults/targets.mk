# The fault runs. `make test` runs a short set of them; this runs all and writes the fault matrix.
export FAULT_MATRIX ?= $(AWSDEPLOY_CACHE)/fault-matrix.md

.PHONY: faults
faults: cluster build ## Every fault at every call, bad weather, seeded combinations; ONLY=<text> runs some
	@FAULTS=all cargo test --workspace --locked --test faults; echo "fault matrix: $(FAULT_MATRIX)"

.PHONY: faults-short
faults-short: cluster build ## The short set of fault tests that `make test` runs
	@cargo test --workspace --locked --test faults

.PHONY: soak
soak: cluster build ## 1,000 rotations with random faults; SOAK=<n> changes the number
	@SOAK=$${SOAK:-1000} cargo test --workspace --locked --test faults
