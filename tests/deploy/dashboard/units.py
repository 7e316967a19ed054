"""Numbers as Grafana writes them in its units, and the round ones that an axis is marked with."""

import math

TIMES = [(1e-6, 1e-9, "ns"), (1e-3, 1e-6, "µs"), (1, 1e-3, "ms"), (60, 1, "s"), (3600, 60, "min"), (86400, 3600, "hours"),
         (604800, 86400, "days"), (math.inf, 604800, "weeks")]
# Of numbers that are no numbers of ten: what a step of an axis may be.
STEPS = {
    "s": [15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 604800],
    "bytes": [2**power for power in range(4, 50)],
}
COUNTS = {"short": "", "ops": " ops/s", "reqps": " req/s"}


class Unknown(Exception):
    """A unit that nobody has taught us: better no picture than a wrong one."""


def digits(value, decimals):
    if decimals is None:
        decimals = 0 if value == 0 else min(3, max(0, 2 - math.floor(math.log10(abs(value)))))
        return f"{value:.{decimals}f}".rstrip("0").rstrip(".") if decimals else f"{value:.0f}"
    return f"{value:.{decimals}f}"


def scaled(value, decimals, base, names, end):
    power = 0
    while abs(value) >= base and power < len(names) - 1:
        value, power = value / base, power + 1
    # What was scaled has the digits that it needs: 1.2 K.
    return digits(value, None if power else decimals) + names[power] + end


def written(value, unit, decimals=None):
    """The number in its unit."""
    if unit == "percentunit":
        return digits(value * 100, decimals) + "%"
    if unit == "s":
        below, by, name = next(found for found in TIMES if abs(value) < found[0]) if value else TIMES[3]
        return f"{digits(value / by, decimals if by == 1 else None)} {name}"
    if unit == "bytes":
        return scaled(value, decimals, 1024, [" B", " KiB", " MiB", " GiB", " TiB"], "")
    if unit.startswith("count:"):
        return scaled(value, decimals, 1000, ["", "K", "M", "B", "T"], " " + unit.removeprefix("count:"))
    if unit not in COUNTS:
        raise Unknown(f"numbers in {unit} are not drawn here")
    return scaled(value, decimals, 1000, ["", " K", " Mil", " Bil", " Tri"], COUNTS[unit])


def ticks(low, high, unit, decimals=None, most=5):
    """Round numbers from `low` up to the first that is not below `high`."""
    rough = (high - low) / most
    if decimals == 0:
        rough = max(rough, 1)
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * by for by in (1, 2, 5, 10) if power * by >= rough * 0.999)
    if unit in STEPS and rough > STEPS[unit][0] * 0.7:
        step = next((one for one in STEPS[unit] if one >= rough), step)
    first = math.floor(low / step)
    return [step * n for n in range(first, math.ceil(high / step - 1e-9) + 1)]
