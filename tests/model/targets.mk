# The model check of the rotation protocol. `make test` runs its short set; this adds the larger configurations.
.PHONY: model
model: preflight ## The model check of the rotation protocol with larger bounds; minutes, one line a configuration
	@MODEL=all cargo test --workspace --locked --lib -- model_check:: --nocapture --test-threads=1
