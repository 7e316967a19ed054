#!/usr/bin/env python3
"""Draws the dashboard as one HTML page of what a Prometheus answers, where there is no Grafana.

    draw.py DASHBOARD.json http://HOST:PORT PAGE.html [--minutes 60] [--end UNIX] [--scrape 15] [--width 1400] [--rows N]

Each expression is asked as Grafana asks it, all variables set to "All"; each panel stands where its gridPos says. Stdout has a
line of JSON for each expression: the panel, the expression, how many series have something to draw. Exit 1 if Prometheus refuses one, or if
a panel is of a kind, or in a unit, that is not drawn here.
"""

import argparse
import html
import json
import pathlib
import sys
import time

import ask
import plot
import units

# Grafana's grid: columns, the height of a row and the gap after it, in pixels.
COLUMNS, ROW, GAP = 24, 30, 8
TITLE, LEGEND_LINE, LETTER = 30, 18, 6.6
HEAD = 76

STYLE = """
body { margin: 0; background: #111217; color: #ccccdc; font: 12px Inter, "DejaVu Sans", Arial, sans-serif }
h1 { font-size: 20px; margin: 0; position: absolute; left: 16px; top: 12px }
.said { position: absolute; left: 16px; right: 16px; top: 44px; color: #a7aab2 }
.panel { position: absolute; box-sizing: border-box; background: #181b1f; border: 1px solid #25282e; border-radius: 3px; overflow: hidden }
.panel h3 { font-size: 13px; font-weight: 600; margin: 0; padding: 8px 8px 0 10px; height: 22px; white-space: nowrap; position: relative; z-index: 1 }
.row { position: absolute; font-size: 15px; font-weight: 600; padding-top: 6px }
.value { position: absolute; left: 0; right: 0; top: 30px; bottom: 0; display: flex; align-items: center; justify-content: center;
  font-weight: 600; color: #fff }
.none { color: #8e8e8e; font-size: 15px; font-weight: 400 }
.legend { padding: 0 10px; line-height: 18px; overflow: hidden }
.legend span { margin-right: 12px; white-space: nowrap }
.legend i { display: inline-block; width: 14px; height: 4px; border-radius: 2px; margin-right: 5px; vertical-align: middle }
svg { display: block } svg text { font-size: 11px; fill: #a7aab2 }
"""
# A stat's background: as the named colours, and dark enough for white letters.
GROUND = {"green": "#299C46", "yellow": "#B88600", "orange": "#E0752D", "red": "#C4162A", "blue": "#1F60C4", "gray": "#4A4D52"}


def stat(panel, found, width):
    """A number on the colour of its threshold."""
    if panel["options"]["reduceOptions"]["calcs"] != ["lastNotNull"]:
        raise ask.Refused(f"{panel['title']}: only the last number is drawn here")
    value = next((s.last() for s in found if s.last() is not None), None)
    defaults = panel["fieldConfig"]["defaults"]
    if value is None:
        return f'<div class="value none">{html.escape(defaults.get("noValue", "No data"))}</div>'
    steps = defaults["thresholds"]["steps"]
    reached = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    text = plot.mapped(defaults, value) or units.written(value, defaults["unit"], defaults.get("decimals"))
    # As large as there is room for.
    style = f"background:{GROUND[reached[-1]]};top:0;padding-top:20px;font-size:{min(34, 1.4 * width / len(text)):.0f}px"
    return f'<div class="value" style="{style}">{html.escape(text)}</div>'


def legend(panel, found, width):
    """The names under a plot, and how high they stand."""
    names = [(series.name, plot.color(panel, series.name, place)) for place, series in enumerate(found)]
    count, left = 1, width - 20
    for name, _ in names:
        wide = len(name) * LETTER + 33
        if wide > left:
            count, left = count + 1, width - 20
        left -= wide
    count = min(count, 3)
    words = "".join(f'<span><i style="background:{ink}"></i>{html.escape(name)}</span>' for name, ink in names)
    return f'<div class="legend" style="height:{count * LEGEND_LINE}px">{words}</div>', count * LEGEND_LINE + 6


def inside(panel, found, step, span, width, height, marks):
    """What stands below the title of a panel."""
    if panel["type"] == "stat":
        return stat(panel, found, width)
    if not any(series.points for series in found):
        return '<div class="value none">No data</div>'
    if panel["type"] == "heatmap":
        return plot.heatmap(panel, found, step, span, width, height - TITLE)
    if panel["type"] == "timeseries":
        names, high = legend(panel, found, width)
        return plot.lines(panel, found, step, span, width, height - TITLE - high, marks) + names
    raise ask.Refused(f"{panel['title']}: a panel of the type {panel['type']} is not drawn here")


def firing(dashboard, asker):
    """The spans of time in which the annotations hold that are shown when the dashboard is opened."""
    spans = []
    for annotation in dashboard["annotations"]["list"]:
        series, step = asker.series({"expr": annotation["expr"]}, 500)
        if not annotation["enable"]:
            continue
        for one in series:
            spans += [(run[0][0], run[-1][0]) for run in plot.runs(one.points, step)]
    return spans


def shown(dashboard, rows):
    """The panels of the first so many rows."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            if rows == 0:
                return
            rows -= 1
        yield panel


def box(panel, asker, place, width, height, marks, said):
    """A panel with its frame."""
    found, step = [], asker.scrape_s
    for target in panel["targets"]:
        series, step = asker.series(target, width)
        found += series
        drawable = sum(bool(one.points) for one in series)
        said({"panel": panel["id"], "title": panel["title"], "expr": target["expr"], "series": drawable})
    drawn = inside(panel, found, step, (asker.begin, asker.end), width - 2, height - 2, marks)
    title, about = html.escape(panel["title"]), html.escape(panel["description"])
    return f'<div class="panel" {place} title="{about}"><h3>{title}</h3>{drawn}</div>'


def about(asker, marks):
    begin, end = time.gmtime(asker.begin), time.gmtime(asker.end)
    chosen = [f"{label}: All ({len(values)})" for label, values in asker.known.items()]
    red = ["red: somebody was paged"] if marks else []
    span = f"{time.strftime('%Y-%m-%d %H:%M', begin)} to {time.strftime('%H:%M UTC', end)}"
    by = "drawn from Prometheus' answers by tests/deploy/dashboard/draw.py, not by Grafana"
    return " · ".join([span, *chosen, *red, by])


def page(dashboard, asker, args, said):
    unit, bottom = (args.width - GAP) / COLUMNS, HEAD
    marks, parts = firing(dashboard, asker), []
    for panel in shown(dashboard, args.rows):
        at = panel["gridPos"]
        left, top = round(GAP + at["x"] * unit), HEAD + at["y"] * (ROW + GAP)
        width, height = round(at["w"] * unit) - GAP, at["h"] * (ROW + GAP) - GAP
        bottom = max(bottom, top + height + GAP)
        place = f'style="left:{left}px;top:{top}px;width:{width}px;height:{height}px"'
        if panel["type"] == "row":
            parts.append(f'<div class="row" {place}>{html.escape(panel["title"])}</div>')
        else:
            parts.append(box(panel, asker, place, width, height, marks, said))
    title = html.escape(dashboard["title"])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
        f'<body style="width:{args.width}px;height:{bottom}px"><h1>{title}</h1>'
        f'<div class="said">{html.escape(about(asker, marks))}</div>{"".join(parts)}</body></html>\n'
    )


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("dashboard", type=pathlib.Path)
    parser.add_argument("prometheus")
    parser.add_argument("page", type=pathlib.Path)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--end", type=float, default=None, help="default: now")
    parser.add_argument("--scrape", type=float, default=15, help="seconds between two scrapes, as the data source says")
    parser.add_argument("--width", type=int, default=1400)
    parser.add_argument("--rows", type=int, default=-1, help="only so many rows; default: all")
    args = parser.parse_args()
    dashboard = json.loads(args.dashboard.read_text())
    end = time.time() if args.end is None else args.end
    try:
        asker = ask.Asker(args.prometheus, dashboard, end - args.minutes * 60, end, args.scrape)
        args.page.write_text(page(dashboard, asker, args, lambda line: print(json.dumps(line))))
    except (ask.Refused, units.Unknown) as why:
        sys.exit(f"{args.dashboard}: {why}")


if __name__ == "__main__":
    main()
