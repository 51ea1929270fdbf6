"""The report of a simulation: one page that needs nothing else, in light and dark."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from html import escape

from .charts import Mark, Points, area_chart, lane_chart, line_chart
from .figures import SAMPLES, Figures, Sample, percentile
from .simulation import Outcome

_STATES = ("healthy", "draining", "unhealthy", "pending", "offline", "unknown")
_SHOWN_MARKS = 400  # more ticks than that are a bar
_TIMED = ("request", "backend.install", "LoadModel")

_STYLE = """
:root { color-scheme: light dark;
  --bg: #fcfcfb; --fg: #1b1d1f; --soft: #5c6166; --grid: #e2e3e4; --card: #ffffff;
  --c0: #1d5fbf; --c1: #b3480a; --c2: #6b3fa0; --healthy: #2c7a4b; --draining: #c99700; --unhealthy: #d2691e;
  --pending: #3f8fd0; --offline: #b3261e; --unknown: #8a8f94; --fault: #b3480a; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --bg: #141618; --fg: #e9eaeb; --soft: #a4aab0; --grid: #33383c;
  --card: #1c1f22; --c0: #7db2ff; --c1: #ffa668; --c2: #c8a2ff; --healthy: #57b980; --draining: #e5bd45;
  --unhealthy: #f0905a; --pending: #7cc0f5; --offline: #ff7b72; --unknown: #8f959b; --fault: #ffa668;
  --bad: #ff7b72; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 24px 16px 48px; max-width: 1040px; background: var(--bg); color: var(--fg);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 22px; margin: 0 0 4px; } h2 { font-size: 16px; margin: 0 0 2px; }
p { margin: 0 0 12px; color: var(--soft); } code { font-size: 13px; overflow-wrap: anywhere; }
.bad { color: var(--bad); font-weight: 600; } .good { color: var(--healthy); font-weight: 600; }
section { background: var(--card); border: 1px solid var(--grid); border-radius: 8px; padding: 14px 16px;
  margin: 16px 0; overflow-x: auto; }
svg { display: block; width: 100%; min-width: 640px; height: auto; }
.axis { fill: var(--soft); font-size: 12px; } .grid { stroke: var(--grid); stroke-width: 1; }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; } .area { stroke: none; }
.mark { stroke: var(--fault); stroke-width: 1.5; } .fault { fill: var(--fault); opacity: .8; }
.area.healthy { fill: var(--healthy); } .area.draining { fill: var(--draining); }
.area.unhealthy { fill: var(--unhealthy); } .area.pending { fill: var(--pending); }
.area.offline { fill: var(--offline); } .area.unknown { fill: var(--unknown); }
.line.c0 { stroke: var(--c0); } .line.c1 { stroke: var(--c1); } .line.c2 { stroke: var(--c2); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 0 0 6px; font-size: 13px; }
.legend i { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 6px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 3px 10px; border-bottom: 1px solid var(--grid); }
th:first-child, td:first-child { text-align: left; } th { color: var(--soft); font-weight: 500; }
"""


def html_report(outcome: Outcome) -> str:
    """The whole page."""
    plan, figures, end_s = outcome.case.plan, outcome.figures, outcome.case.end_s
    title = f"{plan.nodes:,} nodes for {end_s / 3600:g} virtual hours, seed {plan.seed}"
    verdict = (
        '<span class="good">every invariant held</span>'
        if outcome.violation is None
        else f'<span class="bad">broken: {escape(str(outcome.violation))}</span>'
    )
    about = f"{outcome.events:,} events, {len(figures.faults):,} faults ({escape(plan.faults)}): {verdict}"
    sections = (*_timelines(figures, end_s), _faults(figures, end_s), _commands(figures), _counts(figures))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Fleet: {escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(title)}</h1><p>{about}<br>history <code>{outcome.digest}</code></p>"
        f"{''.join(sections)}</body></html>\n"
    )


def _timelines(figures: Figures, end_s: float) -> list[str]:
    samples = figures.samples
    marks = _marks(figures)[:_SHOWN_MARKS]

    def over_time(value: Callable[[Sample], int]) -> Points:
        return [(sample.at_s, float(value(sample))) for sample in samples]

    states = [state for state in _STATES if any(sample.nodes.get(state) for sample in samples)]
    nodes = {state: [(each.at_s, float(each.nodes.get(state, 0))) for each in samples] for state in states}
    replicas = {
        "wanted at least": over_time(lambda sample: sample.wanted),
        "loaded, as the frontend sees it": over_time(lambda sample: sample.loaded),
        "backends running": over_time(lambda sample: sample.running),
    }
    ports = {
        "leased": over_time(lambda sample: sample.ports_leased),
        "at rest": over_time(lambda sample: sample.ports_resting),
    }
    found = [
        _section(
            "Nodes by state", "As the frontend sees them.", _states(states), area_chart(nodes, end_s, marks)
        ),
        _section("Replicas", "", _legend(list(replicas)), line_chart(replicas, end_s, marks)),
        _section("Ports", "Of all nodes together.", _legend(list(ports)), line_chart(ports, end_s, marks)),
    ]
    for command in _TIMED:
        if values := figures.latencies.get(command):
            lines = _percentiles_over_time(values, end_s)
            chart = line_chart(lines, end_s, marks, unit=" s")
            found.append(_section(f"Latency: {command}", "", _legend(list(lines)), chart))
    return found


def _percentiles_over_time(values: Sequence[tuple[float, float]], end_s: float) -> dict[str, Points]:
    """p50, p95 and p99 of each slice of the run that has values."""
    slices: dict[int, list[float]] = defaultdict(list)
    count = SAMPLES // 4
    for at_s, seconds in values:
        slices[min(int(at_s / end_s * count), count - 1)].append(seconds)
    middle = {number: (number + 0.5) * end_s / count for number in slices}
    ordered = {number: sorted(slices[number]) for number in sorted(slices)}
    return {
        name: [(middle[number], percentile(seconds, share)) for number, seconds in ordered.items()]
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
    }


def _faults(figures: Figures, end_s: float) -> str:
    lanes: dict[str, list[Mark]] = {}
    for fault, mark in zip(figures.faults, _marks(figures), strict=True):
        lanes.setdefault(fault.kind, []).append(mark)
    if not lanes:
        return _section("Faults", "None.", "", "")
    chart = lane_chart(dict(sorted(lanes.items())), end_s)
    return _section("Faults", "Point at a bar to see whom it hit. The ticks above are the same.", "", chart)


def _marks(figures: Figures) -> list[Mark]:
    return [Mark(fault.at_s, fault.for_s, str(fault)) for fault in figures.faults]


def _commands(figures: Figures) -> str:
    rows = []
    for command in sorted(figures.latencies):
        p50, p95, p99 = figures.percentiles(command)
        count = len(figures.latencies[command])
        cells = (f"{count:,}", f"{p50:.2f}", f"{p95:.2f}", f"{p99:.2f}")
        rows.append(f"<tr><td>{escape(command)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    head = "<tr><th>command</th><th>answered</th><th>p50 s</th><th>p95 s</th><th>p99 s</th></tr>"
    return _section("Commands", "", "", f"<table>{head}{''.join(rows)}</table>")


def _counts(figures: Figures) -> str:
    rows = "".join(
        f"<tr><td>{escape(what)}</td><td>{count:,}</td></tr>"
        for what, count in sorted(figures.counts.items())
    )
    return _section("Counts", "", "", f"<table><tr><th>what</th><th>times</th></tr>{rows}</table>")


def _section(title: str, text: str, legend: str, content: str) -> str:
    told = f"<p>{escape(text)}</p>" if text else ""
    return f"<section><h2>{escape(title)}</h2>{told}{legend}{content}</section>"


def _legend(names: Sequence[str]) -> str:
    return _keys([(name, f"--c{number}") for number, name in enumerate(names)])


def _states(names: Sequence[str]) -> str:
    return _keys([(name, f"--{name}") for name in names])


def _keys(keys: Sequence[tuple[str, str]]) -> str:
    items = "".join(
        f'<span><i style="background: var({colour})"></i>{escape(name)}</span>' for name, colour in keys
    )
    return f'<div class="legend">{items}</div>'
