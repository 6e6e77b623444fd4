"""Renders the dashboard as an image: each panel at its position, with title, values, units and legend."""

import datetime
import io
import textwrap

import matplotlib

matplotlib.use("Agg")
import matplotlib.dates  # noqa: E402
import matplotlib.pyplot as plt  # noqa: E402
from grafana import require  # noqa: E402
from matplotlib.ticker import FuncFormatter, MaxNLocator  # noqa: E402
from PIL import Image  # noqa: E402

NAMED = {"green": "#2e8540", "red": "#c9252d", "orange": "#d9730d", "yellow": "#c9a400", "blue": "#2a6fbb", "purple": "#7d4fa8", "text": "#24292f"}
# Colors of series without a fixed color: the color-blind-safe palette of Okabe and Ito, then darker ones.
CYCLE = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c6d00", "#444444", "#7a3e9d", "#00594f", "#9b1c31", "#4f6d7a"]
WIDTH, ROW, GAP, TOP, BOTTOM = 1600, 26, 6, 34, 8
DPI = 100


def draw(panels, title, caption, start, end, file):
    plt.rcParams.update({"font.size": 7.5, "axes.linewidth": 0.6, "font.family": "DejaVu Sans"})
    rows = max(panel.position["y"] + panel.position["h"] for panel in panels)
    height = rows * ROW + TOP + BOTTOM
    figure = plt.figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor="#eef0f2")
    canvas = Canvas(figure, height, start, end)
    figure.text(GAP / WIDTH, 1 - TOP / 2 / height, title, size=13, weight="bold", va="center")
    figure.text(1 - GAP / WIDTH, 1 - TOP / 2 / height, caption, size=8, va="center", ha="right", color="#57606a")
    for panel in panels:
        {"row": canvas.row, "stat": canvas.stat, "timeseries": canvas.timeseries, "table": canvas.table}[panel.type](panel)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    plt.close(figure)
    # A palette keeps the file small.
    Image.open(picture).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(file, optimize=True)


class Canvas:
    def __init__(self, figure, height, start, end):
        self.figure, self.height = figure, height
        self.span = [datetime.datetime.fromtimestamp(at, datetime.UTC) for at in (start, end)]

    def box(self, place, left=0, right=0, top=0, bottom=0):
        """Axes at a grid position, with margins in pixels."""
        cell = (WIDTH - GAP) / 24
        x, y = GAP + place["x"] * cell + left, TOP + place["y"] * ROW + top
        w, h = place["w"] * cell - GAP - left - right, place["h"] * ROW - GAP - top - bottom
        return self.figure.add_axes((x / WIDTH, 1 - (y + h) / self.height, w / WIDTH, h / self.height))

    def frame(self, panel):
        axes = self.box(panel.position)
        axes.set(xticks=[], yticks=[], facecolor="white", xlim=(0, 1), ylim=(0, 1))
        for spine in axes.spines.values():
            spine.set_color("#d0d7de")
        axes.annotate(panel.title, (0, 1), xytext=(5, -4), xycoords="axes fraction", textcoords="offset points", va="top", weight="bold", size=8)
        return axes

    def row(self, panel):
        axes = self.box(panel.position)
        axes.axis("off")
        axes.text(0, 0.45, panel.title, size=9.5, weight="bold", va="center", transform=axes.transAxes)

    def stat(self, panel):
        axes = self.frame(panel)
        stats = panel.stats or [("No data", "text")]
        size = 19 if max(len(text) for text, _ in stats) < 9 else 15
        for number, (text, colour) in enumerate(stats):
            axes.text(0.5, 0.42 - (number - (len(stats) - 1) / 2) * 0.32, text, size=size, ha="center", va="center", color=NAMED[colour])

    def table(self, panel):
        axes = self.frame(panel)
        columns, rows = panel.table
        pixels = axes.bbox.height
        line = 17 / pixels
        places = [0.006 + number / len(columns) for number in range(len(columns))]
        y = 1 - 34 / pixels
        for x, name in zip(places, columns, strict=True):
            axes.text(x, y, name, weight="bold", color="#57606a", va="center")
        axes.axhline(y - line / 2, color="#d0d7de", linewidth=0.8)
        for row in rows:
            y -= line
            if y < line:
                axes.text(0.994, 0.03, "more rows below", ha="right", color="#57606a", style="italic")
                break
            for x, (text, colour) in zip(places, row, strict=True):
                axes.text(x, y, text, va="center", color=NAMED[colour])

    def timeseries(self, panel):
        frame = self.frame(panel)
        legend = panel.options["legend"]
        right = require("legend placement", legend["placement"], "right", "bottom") == "right"
        field = panel.field()
        lines = [(name, [datetime.datetime.fromtimestamp(at, datetime.UTC) for at, _ in points], [value for _, value in points])
                 for name, points in panel.lines]
        colours, free = {}, iter(CYCLE * 5)
        for name, *_ in lines:
            colours[name] = NAMED[own] if (own := panel.field(name).colour) else next(free)
        entries = [(name, self.calculated(field, legend["calcs"], values)) for name, _, values in lines]
        below = 0 if right else self.legend_below(frame, entries, colours)
        axes = self.box(panel.position, left=62, right=frame.bbox.width * 0.42 if right else 12, top=26, bottom=24 + below)
        if right:
            self.legend_right(frame, entries, colours, legend["calcs"])
        self.plot(axes, field, panel.interval, lines, colours)
        axes.set_xlim(*self.span)
        axes.set_ylim(field.settings["min"], axes.get_ylim()[1] * 1.08)
        axes.set_xticks(self.ticks())
        axes.xaxis.set_major_formatter(matplotlib.dates.DateFormatter("%H:%M:%S"))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=field.settings.get("decimals") == 0))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: field.text(value)))
        axes.tick_params(length=0, labelcolor="#57606a", labelsize=7)
        axes.grid(color="#e6e9ec", linewidth=0.6)
        axes.set_axisbelow(True)
        for spine in axes.spines.values():
            spine.set_visible(False)

    def ticks(self):
        """At most six round times."""
        start, end = (at.timestamp() for at in self.span)
        step = next(step for step in (15, 30, 60, 120, 300, 600, 3600) if (end - start) / step <= 6)
        first = int(start // step + 1) * step
        return [datetime.datetime.fromtimestamp(at, datetime.UTC) for at in range(first, int(end) + 1, step)]

    @staticmethod
    def plot(axes, field, interval, lines, colours):
        style = require("draw style", field.custom["drawStyle"], "line", "bars", "points")
        heights = {}
        for name, times, values in lines:
            colour = colours[name]
            if style == "bars":
                require("stacking", field.custom["stacking"]["mode"], "normal")
                base = [heights.get(at, 0) for at in times]
                axes.bar(times, values, datetime.timedelta(seconds=interval * 0.8), bottom=base, color=colour)
                heights |= {at: low + value for at, low, value in zip(times, base, values, strict=True)}
            elif style == "points":
                axes.plot(times, values, "o", markersize=field.custom["pointSize"] * 0.8, color=colour, alpha=0.8)
            else:
                steps = require("interpolation", field.custom.get("lineInterpolation", "linear"), "linear", "stepAfter") == "stepAfter"
                # Interrupt the line where values are missing.
                whole = []
                for at, value in zip(times, values, strict=True):
                    if whole and (at - whole[-1][0]).total_seconds() > interval * 1.5:
                        whole.append((at, float("nan")))
                    whole.append((at, value))
                axes.plot(*zip(*whole, strict=True), color=colour, linewidth=1.2, drawstyle="steps-post" if steps else "default")
                axes.fill_between(*zip(*whole, strict=True), color=colour, alpha=field.custom["fillOpacity"] / 200, linewidth=0,
                                  step="post" if steps else None)

    @staticmethod
    def calculated(field, calcs, values):
        made = {"max": max, "sum": sum, "lastNotNull": lambda values: values[-1]}
        return [field.text(made[calc](values)) for calc in calcs]

    def legend_below(self, frame, entries, colours):
        """Draws entries side by side, wrapped into lines; returns the height in pixels."""
        lines, x = [[]], 12
        limit = frame.bbox.width - 12
        for name, _ in entries:
            width = 22 + 6.0 * len(name)
            if x + width > limit and lines[-1]:
                lines.append([])
                x = 12
            lines[-1].append((x, name))
            x += width
        for number, line in enumerate(reversed(lines)):
            y = 10 + 14 * number
            for x, name in line:
                self.entry(frame, x, y, name, colours[name])
        return 14 * len(lines)

    def legend_right(self, frame, entries, colours, calcs):
        names = {"max": "Max", "sum": "Total", "lastNotNull": "Last"}
        width, y = frame.bbox.width, frame.bbox.height - 16
        left = width * 0.6
        columns = [width - 12 - 70 * (len(calcs) - 1 - number) for number in range(len(calcs))]
        for x, calc in zip(columns, calcs, strict=True):
            frame.annotate(names[calc], (x, y), xycoords="axes pixels", ha="right", va="center", color="#57606a", size=7)
        for number, (name, values) in enumerate(entries):
            y -= 14
            if y < 20 and number < len(entries) - 1:
                frame.annotate(f"and {len(entries) - number} more below", (left, y), xycoords="axes pixels", va="center", color="#57606a", size=7, style="italic")
                break
            max_length = int(((columns[0] - 60 if columns else width) - left - 14) / 4.9)
            self.entry(frame, left, y, textwrap.shorten(name, max_length, placeholder="…") if " " in name else name[:max_length], colours[name])
            for x, value in zip(columns, values, strict=True):
                frame.annotate(value, (x, y), xycoords="axes pixels", ha="right", va="center", size=7)

    @staticmethod
    def entry(frame, x, y, name, colour):
        width, height = frame.bbox.width, frame.bbox.height
        frame.plot([x / width, (x + 10) / width], [y / height] * 2, color=colour, linewidth=2.4)
        frame.annotate(name, (x + 14, y), xycoords="axes pixels", va="center", size=7)
