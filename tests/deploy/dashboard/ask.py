"""What a dashboard asks a Prometheus, asked as Grafana asks it: with its variables, its windows, its legends."""

import json
import math
import re
import urllib.error
import urllib.parse
import urllib.request

# Grafana's own figure: a window holds four scrapes, so that one that is missed leaves no gap in a rate.
SCRAPES_IN_A_RATE = 4
TIMEOUT_S = 30
# The address is that of a server near by: what proxies the environment names is for others.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Refused(Exception):
    """Prometheus, or the dashboard, says no."""


class Series:
    """`points` are (time, number) in order of time; what is no number is left out, and is a gap."""

    def __init__(self, name, labels, points):
        self.name, self.labels = name, labels
        self.points = [(float(t), float(v)) for t, v in points if math.isfinite(float(v))]

    def last(self):
        return self.points[-1][1] if self.points else None


class Asker:
    """One dashboard at one Prometheus, over one span of time."""

    def __init__(self, url, dashboard, begin, end, scrape_s):
        self.url, self.begin, self.end, self.scrape_s = url.rstrip("/"), begin, end, scrape_s
        self.chosen, self.known = {}, {}
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                self.look_up(variable)

    def get(self, path, **words):
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(words)}"
        try:
            with OPENER.open(url, timeout=TIMEOUT_S) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise Refused(f"{words}: {error.read().decode()}") from None
        except urllib.error.URLError as error:
            raise Refused(f"{self.url} does not answer: {error.reason}") from None

    def look_up(self, variable):
        """The values that a variable offers; all of them are chosen, as when the dashboard is opened."""
        asked = re.fullmatch(r"label_values\((.*), *(\w+)\)", variable["definition"])
        if not asked:
            raise Refused(f"${variable['name']}: {variable['definition']} is not label_values(…)")
        words = {"match[]": self.filled(asked[1], self.scrape_s), "start": self.begin, "end": self.end}
        self.known[variable["label"]] = self.get(f"label/{asked[2]}/values", **words)
        self.chosen[variable["name"]] = variable["allValue"]

    def filled(self, expr, step):
        """The expression as Prometheus gets it."""
        rate = max(step + self.scrape_s, SCRAPES_IN_A_RATE * self.scrape_s)
        words = {"__rate_interval": f"{rate:g}s", "__range": f"{self.end - self.begin:.0f}s", **self.chosen}

        def value(found):
            if found[1] not in words:
                raise Refused(f"{expr}: nobody knows ${found[1]}")
            return words[found[1]]

        return re.sub(r"\$(\w+)", value, expr)

    def series(self, target, points):
        """What a target gives, at no more than so many points of time."""
        step = max(self.scrape_s, math.ceil((self.end - self.begin) / points))
        query = self.filled(target["expr"], step)
        if target.get("instant"):
            data = self.get("query", query=query, time=self.end)
        else:
            data = self.get("query_range", query=query, start=self.begin, end=self.end, step=step)
        if data["resultType"] == "scalar":
            raise Refused(f"{query}: a scalar, which has no series")
        return [
            Series(legend(target, one["metric"]), one["metric"], one.get("values") or [one["value"]])
            for one in data["result"]
        ], step


def legend(target, labels):
    written = target.get("legendFormat")
    if written:
        return re.sub(r"{{ *(\w+) *}}", lambda found: labels.get(found[1], ""), written)
    inside = ", ".join(f'{name}="{value}"' for name, value in labels.items() if name != "__name__")
    return labels.get("__name__", "") + (f"{{{inside}}}" if inside else "") or "Value"
