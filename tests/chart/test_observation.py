"""Tests of monitors, alerts and dashboard."""

import json
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

import yaml
from chart import CHART, NAME, ROOT, Objects, schema

HERE = pathlib.Path(__file__).resolve().parent
ALERTS = {"metrics": {"prometheusRule": {"enabled": True}}}


# Target labels that Prometheus adds to every series.
TARGET = {"job"}


def metrics():
    """Maps every series to its labels, from the generated reference."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*) \|", (ROOT / "docs" / "reference" / "metrics.md").read_text(), re.MULTILINE)
    found = {}
    for name, kind, labels in rows:
        labels = set(re.findall(r"`(\w+)`", labels))
        if kind == "histogram":
            found |= {f"{name}_bucket": labels | {"le"}, f"{name}_sum": labels, f"{name}_count": labels}
        else:
            found[name] = labels
    return found


def check_expression(test, expression):
    """Checks that all metrics and labels of the expression exist."""
    known = metrics()
    used = re.findall(r"(awsdeploy_\w+)(?:\{([^}]*)\})?", expression)
    test.assertTrue(used, expression)
    labels = set(TARGET)
    for name, selector in used:
        test.assertIn(name, known, expression)
        labels |= known[name]
        for label in re.findall(r"(\w+) *(?:=~|!=|!~|=)", selector or ""):
            test.assertIn(label, known[name], expression)
    for group in re.findall(r"\b(?:by|on) *\(([^)]*)\)", expression):
        for label in re.findall(r"\w+", group):
            test.assertIn(label, labels, expression)


class Scraped(unittest.TestCase):
    """Monitors and PodDisruptionBudget."""

    def test_service_monitor_selects_the_service(self):
        objects = Objects({"metrics": {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}}})
        monitor, service = objects.one("ServiceMonitor"), objects.one("Service")
        selector = monitor["spec"]["selector"]["matchLabels"]
        self.assertEqual(service["metadata"]["labels"] | selector, service["metadata"]["labels"])
        self.assertEqual(monitor["spec"]["endpoints"][0]["port"], service["spec"]["ports"][0]["name"])
        self.assertEqual(monitor["metadata"]["labels"]["release"], "prometheus")

    def test_pod_monitor_selects_the_pods(self):
        objects = Objects({"metrics": {"auth": {"enabled": False}, "podMonitor": {"enabled": True}, "service": {"enabled": False}}})
        monitor, pod = objects.one("PodMonitor"), objects.one("Deployment")["spec"]["template"]
        selector = monitor["spec"]["selector"]["matchLabels"]
        self.assertEqual(pod["metadata"]["labels"] | selector, pod["metadata"]["labels"])
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        self.assertIn(endpoint["port"], [port["name"] for port in objects.container["ports"]])
        self.assertTrue(endpoint["honorLabels"], "`namespace` must be that of the resource")

    def test_disruption_budget_allows_one_unavailable_replica(self):
        objects = Objects()
        budget = objects.one("PodDisruptionBudget")["spec"]
        self.assertEqual(budget["maxUnavailable"], 1)
        self.assertEqual(budget["selector"], objects.one("Deployment")["spec"]["selector"])
        self.assertEqual(Objects({"replicaCount": 1}).kind("PodDisruptionBudget"), [], "with one replica it would block every drain")


class Alerts(unittest.TestCase):
    """PrometheusRule."""

    def rules(self, given=None):
        (group,) = Objects(given or ALERTS).one("PrometheusRule")["spec"]["groups"]
        return {rule["alert"]: rule for rule in group["rules"]}

    def both(self):
        summed = {"metrics": {"perResource": False, "prometheusRule": {"enabled": True}}}
        return [self.rules(), self.rules(summed)]

    def test_alerts_use_existing_metrics_and_labels(self):
        for rules in self.both():
            for rule in rules.values():
                with self.subTest(rule["alert"]):
                    check_expression(self, rule["expr"])

    def test_aggregated_alerts_need_no_series_per_resource(self):
        # Quarantined resources are always exported.
        needed = {name for name, labels in metrics().items() if "namespace" in labels} - {"awsdeploy_quarantined"}
        self.assertTrue(needed)
        for rule in self.both()[1].values():
            self.assertFalse(needed & set(re.findall(r"awsdeploy_\w+", rule["expr"])), rule["alert"])

    def test_every_alert_can_be_disabled_and_has_a_runbook(self):
        items = schema()["properties"]["metrics"]["properties"]["prometheusRule"]["properties"]["disabled"]["items"]
        headings = re.findall(r"^### (\w+)$", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
        for rules in self.both():
            self.assertEqual(sorted(rules), sorted(items["enum"]))
            self.assertEqual(set(rules) - set(headings), set(), "docs/operations.md has a runbook for each")
        self.assertEqual({heading for heading in headings if heading.startswith("AwsDeploy")}, set(rules))
        url = {"metrics": {"prometheusRule": {"enabled": True, "runbookUrl": "https://example.com/operations"}}}
        for name, rule in self.rules(url).items():
            self.assertEqual(rule["annotations"]["runbook_url"], f"https://example.com/operations#{name.lower()}")
        given = {"metrics": {"prometheusRule": {"enabled": True, "disabled": items["enum"][:-1]}}}
        self.assertEqual(list(self.rules(given)), items["enum"][-1:])

    def test_alerts_have_severity_and_routing_labels(self):
        given = {"metrics": {"prometheusRule": {"enabled": True, "alertLabels": {"team": "platform"}}}}
        for rule in self.rules(given).values():
            self.assertIn(rule["labels"].pop("severity"), ("critical", "warning", "info"))
            self.assertEqual(rule["labels"], {"team": "platform"})

    @unittest.skipUnless(os.environ.get("PROMTOOL"), "PROMTOOL is not set")
    def test_every_alert_fires_and_clears(self):
        for number, rules in enumerate(self.both()):
            cases = yaml.safe_load((HERE / "alerts" / ("each.yaml", "summed.yaml")[number]).read_text())
            tested = {case["alertname"] for test in cases["tests"] for case in test["alert_rule_test"] if case["exp_alerts"]}
            cleared = {case["alertname"] for test in cases["tests"] for case in test["alert_rule_test"] if not case["exp_alerts"]}
            self.assertEqual(tested, set(rules), "each alert is tested firing")
            self.assertEqual(cleared, set(rules), "each alert is tested not firing")
            with tempfile.TemporaryDirectory() as directory:
                objects = Objects({"metrics": {"perResource": number == 0, "prometheusRule": {"enabled": True}}})
                (pathlib.Path(directory) / "rules.yaml").write_text(yaml.safe_dump(objects.one("PrometheusRule")["spec"]))
                (pathlib.Path(directory) / "cases.yaml").write_text(yaml.safe_dump(cases | {"rule_files": ["rules.yaml"]}))
                for command in (["check", "rules", "rules.yaml"], ["test", "rules", "cases.yaml"]):
                    done = subprocess.run(
                        [os.environ["PROMTOOL"], *command], cwd=directory, capture_output=True, text=True, check=False, timeout=120
                    )
                    self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


class Dashboard(unittest.TestCase):
    """The Grafana dashboard."""

    FILE = CHART / "dashboards" / f"{NAME}.json"

    def panels(self):
        return [panel for panel in json.loads(self.FILE.read_text())["panels"] if panel["type"] != "row"]

    def test_config_map_contains_the_dashboard_unchanged(self):
        shown = Objects({"metrics": {"dashboard": {"enabled": True}}}).one("ConfigMap", "-dashboard")
        self.assertEqual(shown["metadata"]["labels"]["grafana_dashboard"], "1")
        (content,) = shown["data"].values()
        self.assertEqual(json.loads(content), json.loads(self.FILE.read_text()))

    def test_panels_use_existing_metrics_and_labels(self):
        for panel in self.panels():
            with self.subTest(panel["title"]):
                self.assertTrue(panel["targets"])
                for target in panel["targets"]:
                    check_expression(self, target["expr"])
                    for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                        self.assertIn(label, target["expr"], "the legend uses a label that is aggregated away")

    def test_every_metric_is_used_in_dashboard_or_alert(self):
        shown = self.FILE.read_text() + json.dumps(Objects(ALERTS).one("PrometheusRule"))
        for name in metrics():
            self.assertIn(name.removesuffix("_sum").removesuffix("_count"), shown)

    def test_panels_do_not_overlap(self):
        taken = set()
        for panel in json.loads(self.FILE.read_text())["panels"]:
            position = panel["gridPos"]
            cells = {(x, y) for x in range(position["x"], position["x"] + position["w"]) for y in range(position["y"], position["y"] + position["h"])}
            self.assertFalse(cells & taken, panel["title"])
            self.assertLessEqual(position["x"] + position["w"], 24)
            taken |= cells
