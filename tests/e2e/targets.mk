# Real pods on a real node. It needs root and Linux, and says what else.
.PHONY: e2e
e2e: build ## The image, the chart and a pod that mounts the Secret, on a real node; needs root, Linux, runc, buildah
	@tests/e2e/run
