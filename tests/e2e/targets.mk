# Real pods on a real node. Requires root and Linux; tests/e2e/run --check lists what is missing.
.PHONY: e2e
e2e: build ## Test image, chart and pods on a real node (requires root, Linux, runc, buildah)
	@tests/e2e/run
