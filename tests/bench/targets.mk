# Measures the cost of many resources. It has no pass criteria.
.PHONY: bench
bench: cluster build ## Measure memory, time and AWS calls of a release build with 1,000 resources (BENCH=<n>, BENCH_RATE=<n>)
	@cargo build --release --workspace --locked --bin aws-deploy-user-operator
	@AWSDEPLOY_TEST_OPERATOR=$${AWSDEPLOY_TEST_OPERATOR:-$(CARGO_TARGET_DIR)/release/aws-deploy-user-operator} \
		BENCH=$${BENCH:-1000} cargo test --workspace --locked --test bench
