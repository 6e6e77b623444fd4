# Measures the cost of many resources. It has no pass criteria.
.PHONY: bench
bench: cluster build ## Measure memory, time and AWS calls with 1,000 resources (BENCH=<n>)
	@BENCH=$${BENCH:-1000} cargo test --workspace --locked --test bench
