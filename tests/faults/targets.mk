# `make test` runs a short set of the fault tests. These targets run all of them.
.PHONY: faults
faults: cluster build ## Every fault at every write, fault profiles, seeded combinations; ONLY=<text> selects runs
	@FAULTS=all cargo test --workspace --locked --test faults

.PHONY: faults-short
faults-short: cluster build ## The short set of fault tests that `make test` runs
	@cargo test --workspace --locked --test faults

.PHONY: soak
soak: cluster build ## 1,000 rotations with random faults; SOAK=<n> changes the number
	@SOAK=$${SOAK:-1000} cargo test --workspace --locked --test faults
