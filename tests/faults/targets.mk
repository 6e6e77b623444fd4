# The fault runs. `make test` runs a short set of them; this runs all and writes docs/fault-matrix.md.
.PHONY: faults
faults: cluster build ## Every fault at every call, bad weather, seeded combinations; ONLY=<text> runs some
	@FAULTS=all cargo test --workspace --locked --test faults
