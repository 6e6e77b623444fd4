"""A real Prometheus, queried through its HTTP API."""

import json
import math
import pathlib
import re
import urllib.error
import urllib.parse
import urllib.request

from processes import Processes, free_port, until

# Without a proxy, because all requests are to loopback.
open_url = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


class PrometheusError(Exception):
    """A query failed; the message is from Prometheus."""


class Prometheus:
    SCRAPE_SECONDS = 1

    def __init__(self, processes: Processes, program: str, directory: pathlib.Path, targets: dict, rules: dict):
        """`targets`: address -> labels that the Prometheus Operator would give; `rules`: name -> spec of a PrometheusRule."""
        directory.mkdir()
        every = f"{self.SCRAPE_SECONDS}s"
        configuration = {
            "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
            "rule_files": [f"{name}.rules.json" for name in rules],
            "scrape_configs": [
                {
                    "job_name": "aws-deploy-user-operator",
                    # As in the monitors of the chart: the labels `namespace` and `name` are those of a resource.
                    "honor_labels": True,
                    "static_configs": [{"targets": [address], "labels": labels} for address, labels in targets.items()],
                }
            ],
        }
        # JSON is YAML.
        (directory / "prometheus.yml").write_text(json.dumps(configuration))
        for name, spec in rules.items():
            # Both sets have the same alert names; a label distinguishes their series.
            groups = [group | {"labels": {"rules": name}} for group in spec["groups"]]
            (directory / f"{name}.rules.json").write_text(json.dumps({"groups": groups}))
        self.processes = processes
        self.address = f"127.0.0.1:{free_port()}"
        processes.start(
            "prometheus",
            [program, f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data",
             f"--web.listen-address={self.address}", "--log.level=warn"],
        )
        until("Prometheus is ready", self.is_ready, alive=processes.all_alive)

    def is_ready(self):
        try:
            with open_url(f"http://{self.address}/-/ready", timeout=5) as reply:
                return reply.status == 200
        except OSError:
            return False

    def query(self, path, **parameters):
        body = urllib.parse.urlencode(parameters).encode() or None
        try:
            with open_url(f"http://{self.address}/api/v1/{path}", body, timeout=30) as reply:
                response = json.load(reply)
        except urllib.error.HTTPError as error:
            raise PrometheusError(json.load(error).get("error", str(error))) from error
        if response["status"] != "success" or response.get("warnings"):
            raise PrometheusError(response.get("error") or response["warnings"])
        return response["data"]

    def instant(self, expression, at=None):
        """[(labels, value)] in the order of Prometheus, without NaN."""
        data = self.query("query", query=expression, **({} if at is None else {"time": at}))
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        found = [(series["metric"], float(series["value"][1])) for series in data["result"]]
        return [(labels, value) for labels, value in found if not math.isnan(value)]

    def range(self, expression, start, end, step):
        """[(labels, [(time, value)])] without non-finite values and empty series."""
        data = self.query("query_range", query=expression, start=start, end=end, step=step)
        found = []
        for series in data["result"]:
            points = [(time, float(value)) for time, value in series["values"] if math.isfinite(float(value))]
            if points:
                found.append((series["metric"], points))
        return found

    def until(self, expression, within=60.0):
        """Waits until the expression has a result."""
        return until(expression, lambda: self.instant(expression), within, self.processes.all_alive)

    def rules(self):
        """Maps (file, alert) to the state of the rule."""
        return {
            (pathlib.Path(group["file"]).name.split(".")[0], rule["name"]): rule
            for group in self.query("rules")["groups"]
            for rule in group["rules"]
        }


def metrics_of(expression):
    """Names of the operator's metrics in an expression."""
    return set(re.findall(r"\bawsdeploy_\w+", expression))
