"""Emulates how Grafana evaluates and formats the dashboard. Supports only features that the dashboard uses and raises
UnsupportedFeature for others, so that the image does not differ from Grafana."""

import json
import math
import re

# (limit, interval) in milliseconds: how Grafana rounds intervals.
INTERVALS = [
    (1500, 1000), (3500, 2000), (7500, 5000), (12500, 10000), (17500, 15000), (25000, 20000), (45000, 30000), (90000, 60000),
    (210000, 120000), (450000, 300000), (750000, 600000), (1050000, 900000), (1500000, 1200000), (2700000, 1800000), (5400000, 3600000),
]


class UnsupportedFeature(Exception):
    """The dashboard uses a feature that this module does not support."""


def require(what, value, *allowed):
    if value not in allowed:
        raise UnsupportedFeature(f"{what}: {value!r} is not supported, only {allowed}")
    return value


def intervals(seconds, points, scrape):
    """$__interval and $__rate_interval in seconds for a range with at most `points` data points."""
    wanted = seconds * 1000 / points
    rounded = next((interval for limit, interval in INTERVALS if wanted < limit), 86_400_000) / 1000
    interval = max(rounded, scrape)
    return interval, max(interval + scrape, 4 * scrape)


def significant(value, decimals):
    if decimals is not None:
        return f"{value:.{decimals}f}"
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def scaled(value, decimals, scale):
    for factor, unit in reversed(scale):
        if abs(value) >= factor:
            return significant(value / factor, decimals) + unit
    factor, unit = scale[0]
    return significant(value / factor, decimals) + unit


SECONDS = [(1e-6, " µs"), (1e-3, " ms"), (1, " s"), (60, " min"), (3600, " h"), (86400, " days"), (604800, " weeks"), (31536000, " years")]
COUNTS = [(1, ""), (1e3, " K"), (1e6, " Mil")]


def shown(value, unit="none", decimals=None):
    """Formats a value with its unit."""
    match require("unit", unit, "none", "short", "s", "reqps", "ops"):
        case "none":
            return significant(value, decimals)
        case "short":
            return significant(value, decimals) if abs(value) < 1 else scaled(value, decimals, COUNTS)
        case "s":
            return "0 s" if value == 0 else scaled(value, decimals, SECONDS)
        case "reqps":
            return significant(value, decimals) + " req/s"
        case "ops":
            return significant(value, decimals) + " ops/s"


class Field:
    """Display settings of a field: panel defaults and overrides by name."""

    def __init__(self, config, name=""):
        self.settings = {key: value for key, value in config["defaults"].items() if key != "custom"}
        self.custom = dict(config["defaults"].get("custom", {}))
        for override in config["overrides"]:
            require("matcher", override["matcher"]["id"], "byName")
            if override["matcher"]["options"] == name:
                for given in override["properties"]:
                    where = self.custom if given["id"].startswith("custom.") else self.settings
                    where[given["id"].removeprefix("custom.")] = given["value"]
        for setting in self.settings:
            require("field setting", setting, "unit", "decimals", "min", "thresholds", "mappings", "color")

    def text(self, value):
        for mapping in self.settings.get("mappings", []):
            require("mapping", mapping["type"], "value")
            if (option := mapping["options"].get(f"{value:g}")) is not None:
                return option["text"]
        return shown(value, self.settings.get("unit", "none"), self.settings.get("decimals"))

    def threshold(self, value):
        """Color of the highest threshold that the value reaches."""
        colour = "text"
        if (thresholds := self.settings.get("thresholds")) is not None:
            require("thresholds", thresholds["mode"], "absolute")
            for step in thresholds["steps"]:
                if step["value"] is None or value >= step["value"]:
                    colour = step["color"]
        return colour

    @property
    def colour(self):
        """The fixed color, or None."""
        if (colour := self.settings.get("color")) is None:
            return None
        require("color mode", colour["mode"], "fixed")
        return colour["fixedColor"]


class Panel:
    def __init__(self, given):
        self.given = given
        self.type = require("panel", given["type"], "row", "stat", "timeseries", "table")
        self.title = given["title"]
        self.position = given["gridPos"]
        self.targets = given.get("targets", [])
        self.options = given.get("options", {})
        self.results = []
        self.interval = None

    def field(self, name=""):
        return Field(self.given["fieldConfig"], name)

    def substituted(self, expression, span, scrape):
        self.interval, rate = intervals(span, self.given.get("maxDataPoints", 40 * self.position["w"]), scrape)
        expression = expression.replace("$__rate_interval", f"{rate:g}s").replace("$__range", f"{span:.0f}s")
        # "All" of a variable with an allValue.
        expression = re.sub(r"\$(namespace|account)\b", ".*", expression)
        if "$" in expression:
            raise UnsupportedFeature(f"variable in {expression}")
        return expression

    def evaluate(self, prometheus, start, end):
        """Runs all queries and returns a description of each problem. The fallback `or vector(0)` alone counts as no data."""
        problems = []
        self.results = []
        for target in self.targets:
            expression = self.substituted(target["expr"], end - start, prometheus.SCRAPE_SECONDS)
            without_fallback = expression.removesuffix(" or vector(0)")
            if self.type == "timeseries":
                step = max(self.interval, prometheus.SCRAPE_SECONDS)
                result = prometheus.range(expression, math.floor(start / step) * step, end, step)
                values = result
            else:
                if not target.get("instant") or target.get("range"):
                    raise UnsupportedFeature(f"{self.title}: a query that is not instant")
                result = prometheus.instant(expression, end)
                values = [value for _, value in prometheus.instant(without_fallback, end)]
            if not values or (without_fallback != expression and not any(values)):
                problems.append(f"{self.title}: no data for {target['expr']}")
            self.results.append(result)
        return problems

    def legend(self, target, labels):
        return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), target["legendFormat"])

    @property
    def lines(self):
        """[(legend, [(time, value)])] of a time series."""
        return sorted(
            (self.legend(target, labels), points)
            for target, result in zip(self.targets, self.results, strict=True)
            for labels, points in result
        )

    @property
    def stats(self):
        """[(text, colour)] of a stat."""
        require("reduction", self.options["reduceOptions"]["calcs"], ["lastNotNull"])
        by_name = require("text mode", self.options.get("textMode", "auto"), "auto", "name") == "name"
        return [
            (self.legend(target, labels) if by_name else self.field().text(value), self.field().threshold(value))
            for target, result in zip(self.targets, self.results, strict=True)
            for labels, value in result
        ]

    @property
    def table(self):
        """Column names and rows of (text, color): the results of all queries, merged by labels."""
        merge, organize = self.given["transformations"]
        require("transformation", merge["id"], "merge")
        require("transformation", organize["id"], "organize")
        rows = {}
        for target, result in zip(self.targets, self.results, strict=True):
            require("format", target["format"], "table")
            for labels, value in result:
                row = rows.setdefault(tuple(sorted(labels.items())), dict(labels))
                row[f"Value #{target['refId']}" if len(self.targets) > 1 else "Value"] = value
        order, names = organize["options"]["indexByName"], organize["options"]["renameByName"]
        present = {column for row in rows.values() for column in row}
        if present - set(order):
            raise UnsupportedFeature(f"{self.title}: columns without a position: {present - set(order)}")
        columns = sorted(present, key=order.get)
        (sort,) = self.options["sortBy"]
        by = next(column for column in columns if names[column] == sort["displayName"])
        cells = []
        # Missing values are last.
        for row in sorted(rows.values(), key=lambda row: -row.get(by, -math.inf) if sort["desc"] else row.get(by, math.inf)):
            cells.append([])
            for column in columns:
                field, value = self.field(names[column]), row.get(column)
                if value is None or isinstance(value, str):
                    cells[-1].append((value or "", "text"))
                else:
                    coloured = field.custom.get("cellOptions", {}).get("type") == "color-text"
                    cells[-1].append((field.text(value), field.threshold(value) if coloured else "text"))
        return [names[column] for column in columns], cells


def read(file):
    return [Panel(given) for given in json.loads(file.read_text())["panels"]]
