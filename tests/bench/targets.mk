# What many resources cost. Prints figures and judges none.
.PHONY: bench
bench: cluster build ## Memory, time and calls with 1,000 resources; BENCH=<n> makes it another number
	@BENCH=$${BENCH:-1000} cargo test --workspace --locked --test bench
