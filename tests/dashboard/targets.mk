# Evaluates every query of the dashboard on a real Prometheus and renders the image in the docs.
.PHONY: dashboard
dashboard: cluster build ## Evaluate all dashboard and alert queries on a real Prometheus, render docs/dashboard.png (5 minutes)
	@tests/dashboard/run
