"""Tests of the emulation of Grafana."""

import pathlib
import unittest

import grafana

FILE = pathlib.Path(__file__).resolve().parents[2] / "charts/aws-deploy-user-operator/dashboards/aws-deploy-user-operator.json"


class FakePrometheus:
    """Returns fixed results."""

    SCRAPE_SECONDS = 1

    def __init__(self, instant=(), over_time=()):
        self.given = {"instant": list(instant), "range": list(over_time)}

    def instant(self, _expression, _at):
        return self.given["instant"]

    def range(self, _expression, _start, _end, _step):
        return self.given["range"]


class Grafana(unittest.TestCase):
    def test_intervals_are_rounded_and_rates_span_four_scrapes(self):
        day = 24 * 3600
        for given, wanted in (
            ((day, 60, 30), (1200, 1230)),
            ((day, 320, 30), (300, 330)),
            ((240, 60, 1), (5, 6)),
            ((240, 320, 1), (1, 4)),
            ((3600, 320, 30), (30, 120)),
        ):
            self.assertEqual(grafana.intervals(*given), wanted, given)

    def test_values_are_formatted_with_units(self):
        for given, wanted in (
            ((0.0312, "s"), "31.2 ms"), ((0, "s"), "0 s"), ((90, "s", 1), "1.5 min"), ((-90, "s", 1), "-1.5 min"),
            ((30 * 86400, "s", 1), "4.3 weeks"), ((2.5, "reqps"), "2.5 req/s"), ((0.25, "ops"), "0.25 ops/s"),
            ((1234, "short"), "1.23 K"), ((3.2, "short", 0), "3"), ((7, "none"), "7"),
        ):
            self.assertEqual(grafana.shown(*given), wanted, given)
        with self.assertRaises(grafana.UnsupportedFeature):
            grafana.shown(1, "furlongs")

    def test_all_dashboard_features_are_supported(self):
        panels = grafana.read(FILE)
        self.assertTrue(panels)
        for panel in panels:
            with self.subTest(panel.title):
                names = [] if panel.type == "row" else [over["matcher"]["options"] for over in panel.given["fieldConfig"]["overrides"]]
                for field in [] if panel.type == "row" else [panel.field(), *map(panel.field, names)]:
                    self.assertTrue(field.text(1.5))
                    self.assertTrue(field.threshold(1.5))
                for target in panel.targets:
                    self.assertNotIn("$", panel.substituted(target["expr"], 86400, 30))

    def test_empty_panels_are_reported(self):
        for panel in grafana.read(FILE):
            if panel.type == "row":
                continue
            with self.subTest(panel.title):
                self.assertEqual(len(panel.evaluate(FakePrometheus(), 0, 240)), len(panel.targets))
                something = FakePrometheus([({}, 1.0)], [({}, [(0, 1.0)])])
                self.assertEqual(panel.evaluate(something, 0, 240), [])

    def test_fallback_to_zero_counts_as_empty(self):
        (panel,) = (panel for panel in grafana.read(FILE) if panel.title == "Quarantined")
        self.assertTrue(panel.targets[0]["expr"].endswith(" or vector(0)"))
        self.assertTrue(panel.evaluate(FakePrometheus([({}, 0.0)]), 0, 240))

    def test_table_has_one_row_per_resource_not_ready_first(self):
        (panel,) = (panel for panel in grafana.read(FILE) if panel.type == "table" and panel.title == "AwsDeployUsers")
        ready, failing = {"namespace": "deploy", "name": "ready"}, {"namespace": "deploy", "name": "failing"}
        panel.results = [[(ready, 1.0), (failing, 0.0)], [], [], [(ready, 90.0)], [(ready, -60.0)]]
        columns, rows = panel.table
        self.assertEqual(columns, ["Namespace", "Name", "Ready", "Key age", "Next rotation in"])
        self.assertEqual(rows[0], [("deploy", "text"), ("failing", "text"), ("no", "red"), ("", "text"), ("", "text")])
        self.assertEqual(rows[1][2:], [("yes", "green"), ("1.5 min", "text"), ("-1.0 min", "red")])
