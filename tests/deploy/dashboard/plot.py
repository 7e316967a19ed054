"""The two kinds of plots of the dashboard, as SVG: lines over time, and a heatmap of a histogram's buckets."""

import html
import math
import time

import units

CLASSIC = ["#7EB26D", "#EAB839", "#6ED0E0", "#EF843C", "#E24D42", "#1F78C1", "#BA43A9", "#705DA0", "#508642", "#CCA300"]
NAMED = {"green": "#73BF69", "yellow": "#FADE2A", "orange": "#FF9830", "red": "#F2495C", "purple": "#B877D9",
         "blue": "#5794F2", "gray": "#8E8E8E"}
GRID, WORDS = "#2C3235", "#A7AAB2"
LEFT, RIGHT, TOP, BOTTOM = 78, 12, 10, 24
# Round steps between two marks of time.
MARKS = [10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800]


class Frame:
    """Where times and numbers are on the paper."""

    def __init__(self, width, height, span, low, high):
        self.width, self.height, self.span, self.low, self.high = width, height, span, low, high

    def x(self, when):
        begin, end = self.span
        return LEFT + (when - begin) / (end - begin) * (self.width - LEFT - RIGHT)

    def y(self, value):
        part = (value - self.low) / (self.high - self.low)
        return self.height - BOTTOM - part * (self.height - TOP - BOTTOM)

    def svg(self, parts):
        return f'<svg width="{self.width}" height="{self.height}">{"".join(parts)}</svg>'

    def times(self):
        begin, end = self.span
        step = next((mark for mark in MARKS if (end - begin) / mark <= self.width / 90), MARKS[-1])
        form = "%H:%M:%S" if step < 60 else "%H:%M" if end - begin < 86400 else "%m/%d %H:%M"
        for n in range(math.ceil(begin / step), math.floor(end / step) + 1):
            x = self.x(n * step)
            yield f'<path d="M{x:.1f} {TOP}V{self.height - BOTTOM}" stroke="{GRID}"/>'
            yield word(x, self.height - 5, time.strftime(form, time.gmtime(n * step)), "middle")


def word(x, y, text, anchor):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'


def color(panel, name, place):
    """The colour that an override gives this name, else the next one of the palette."""
    for override in panel["fieldConfig"]["overrides"]:
        if override["matcher"] == {"id": "byName", "options": name}:
            for found in override["properties"]:
                if found["id"] == "color":
                    return NAMED[found["value"]["fixedColor"]]
    return CLASSIC[place % len(CLASSIC)]


def stacked(all_series):
    """Each series upon those before it, where they have a point at the same time: pairs of lower and upper edge."""
    floor = {}
    for series in all_series:
        edges = [(t, floor.get(t, 0.0), floor.get(t, 0.0) + v) for t, v in series.points]
        floor.update({t: upper for t, _, upper in edges})
        yield edges


def runs(edges, step):
    """Cut where points are missing."""
    run = []
    for edge in edges:
        if run and edge[0] - run[-1][0] > step * 1.5:
            yield run
            run = []
        run.append(edge)
    if run:
        yield run


def lines(panel, all_series, step, span, width, height, marks):
    """A timeseries panel; `marks` are spans of time in which an alert fired."""
    defaults = panel["fieldConfig"]["defaults"]
    custom, unit = defaults["custom"], defaults["unit"]
    if custom["stacking"]["mode"] == "normal":
        edges = list(stacked(all_series))
    else:
        edges = [[(t, 0.0, v) for t, v in series.points] for series in all_series]
    values = [upper for one in edges for _, _, upper in one]
    low = defaults.get("min", min(values))
    high = defaults.get("max", max(values))
    # A line that is flat stands in the middle of its panel, one of zeros at the bottom.
    high = high if high > low else low + (abs(low) or 1)
    axis = units.ticks(low, high, unit, defaults.get("decimals"))
    frame = Frame(width, height, span, min(low, axis[0]), axis[-1])
    parts = list(frame.times())
    for value in axis:
        parts.append(f'<path d="M{LEFT} {frame.y(value):.1f}H{width - RIGHT}" stroke="{GRID}"/>')
        text = mapped(defaults, value) or units.written(value, unit, defaults.get("decimals"))
        parts.append(word(LEFT - 6, frame.y(value) + 4, text, "end"))
    for begin, end in marks:
        x, w = frame.x(begin), max(1.0, frame.x(end) - frame.x(begin))
        parts.append(f'<rect x="{x:.1f}" y="{TOP}" width="{w:.1f}" height="{height - TOP - BOTTOM}" fill="#F2495C" '
                     f'fill-opacity="0.12"/>')
    for place, (series, one) in enumerate(zip(all_series, edges)):
        ink = color(panel, series.name, place)
        for run in runs(one, step):
            upper = " ".join(f"{frame.x(t):.1f},{frame.y(top):.1f}" for t, _, top in run)
            under = " ".join(f"{frame.x(t):.1f},{frame.y(bottom):.1f}" for t, bottom, _ in reversed(run))
            parts.append(f'<polygon points="{upper} {under}" fill="{ink}" fill-opacity="{custom["fillOpacity"] / 100}"/>')
            # Without a line, what is nothing leaves no trace upon the others.
            wide = custom["lineWidth"] and custom["lineWidth"] + 0.5
            parts.append(f'<polyline points="{upper}" fill="none" stroke="{ink}" stroke-width="{wide}"/>')
    return frame.svg(parts)


def mapped(defaults, value):
    for mapping in defaults.get("mappings", []):
        found = mapping["options"].get(f"{value:g}") if mapping["type"] == "value" else None
        if found:
            return found["text"]
    return None


def heatmap(panel, all_series, step, span, width, height):
    """Cumulative buckets, by `le`; each cell is what is in its bucket and in none below."""
    buckets = sorted(all_series, key=lambda series: float(series.labels["le"]))
    frame = Frame(width, height, span, 0, len(buckets))
    parts, below, cells = list(frame.times()), {}, []
    for row, series in enumerate(buckets):
        for t, v in series.points:
            cells.append((row, t, max(0.0, v - below.get(t, 0.0))))
        below = dict(series.points)
        if row % math.ceil(len(buckets) / 8) == 0 or row == len(buckets) - 1:
            bound = float(series.labels["le"])
            text = "+Inf" if math.isinf(bound) else units.written(bound, panel["options"]["yAxis"]["unit"])
            parts.append(word(LEFT - 6, frame.y(row + 0.5) + 4, text, "end"))
    most = max((n for _, _, n in cells), default=0)
    tall = frame.y(0) - frame.y(1) - 1
    for row, t, n in cells:
        # A rate's remainder is no digest.
        if n > most / 1000:
            left, right = frame.x(max(span[0], t - step)), frame.x(t)
            parts.append(f'<rect x="{left:.1f}" y="{frame.y(row + 1):.1f}" width="{max(1.0, right - left - 1):.1f}" '
                         f'height="{tall:.1f}" fill="#FF9830" fill-opacity="{0.3 + 0.7 * n / most:.2f}"/>')
    return frame.svg(parts)
