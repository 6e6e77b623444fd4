# The fault runs. `make test` runs a short set of them; this runs all and writes docs/fault-matrix.md.
.PHONY: faults
faults: cluster build ## Every fault at every call, bad weather, seeded combinations; ONLY=<text> runs some
	@FAULTS=all cargo test --workspace --locked --test faults

.PHONY: soak
soak: cluster build ## 1,000 rotations with faults at random; SOAK=<n> makes it another number
	@SOAK=$${SOAK:-1000} cargo test --workspace --locked --test faults
