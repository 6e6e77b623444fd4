# The dashboard with the data of a real Prometheus: every panel's query is asked, and the picture in the docs is drawn.
.PHONY: dashboard
dashboard: cluster build ## Every query of the dashboard and the alerts in a real Prometheus, and docs/dashboard.png; 5 minutes
	@tests/dashboard/run
