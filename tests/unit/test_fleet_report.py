"""The report of a fleet: its charts, and the page as a real browser shows it."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from localai_worker.app.simulator.fleet.charts import Mark, area_chart, lane_chart, line_chart, nice_ceiling
from localai_worker.app.simulator.fleet.faults import schedule
from localai_worker.app.simulator.fleet.plan import FleetPlan
from localai_worker.app.simulator.fleet.report import html_report
from localai_worker.app.simulator.fleet.simulation import Outcome, play
from tests.chromium import chromium_page

# Of everything that shows text: is it readable on what lies behind it? WCAG asks for 4.5; then, does the page
# need to be scrolled sideways, and does any text of a chart leave it?
CHECKS = """(() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const linear = value => (value /= 255) <= .03928 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4;
  const light = rgb => { const [r, g, b] = rgb.map(linear);
    return .2126 * r + .7152 * g + .0722 * b; };
  const behind = node => { for (; node; node = node.parentElement) {
    const found = parse(getComputedStyle(node).backgroundColor);
    if (found.length < 4 || found[3] > 0) return found.slice(0, 3); } return [255, 255, 255]; };
  const poor = [];
  for (const node of document.querySelectorAll('h1, h2, p, td, th, span, text')) {
    const style = getComputedStyle(node);
    const colour = parse(node.tagName === 'text' ? style.fill : style.color).slice(0, 3);
    const [a, b] = [light(colour), light(behind(node))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) poor.push(node.textContent);
  }
  const outside = [...document.querySelectorAll('svg text')].filter(node => {
    const [text, chart] = [node.getBoundingClientRect(), node.ownerSVGElement.getBoundingClientRect()];
    return text.left < chart.left - 1 || text.right > chart.right + 1 || text.bottom > chart.bottom + 1; });
  return { poor, outside: outside.map(node => node.textContent),
    charts: document.querySelectorAll('svg').length, areas: document.querySelectorAll('.area').length,
    lines: document.querySelectorAll('.line').length,
    faults: document.querySelectorAll('.fault title').length,
    background: getComputedStyle(document.body).backgroundColor,
    sideways: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    requests: performance.getEntriesByType('resource').length }; })()"""


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return play(schedule(FleetPlan(nodes=4, hours=0.5, seed=6, faults="storm", requests=60)))


def test_the_page_needs_nothing_else_and_names_its_seed(outcome: Outcome) -> None:
    page = html_report(outcome)
    assert "seed 6" in page
    assert outcome.digest in page
    assert "every invariant held" in page
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)


def test_every_chart_is_well_formed(outcome: Outcome) -> None:
    charts = re.findall(r"<svg.*?</svg>", html_report(outcome), re.DOTALL)
    assert len(charts) >= 6
    for chart in charts:
        ElementTree.fromstring(chart)
        assert "nan" not in chart


def test_the_page_is_readable_in_a_browser_in_light_and_dark(outcome: Outcome, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(html_report(outcome), encoding="utf-8")
    backgrounds = set()
    with chromium_page(tmp_path) as page:
        for scheme, width in (("light", 1100), ("dark", 1100), ("light", 420)):
            page.open(file, scheme=scheme, width=width)
            seen = page.evaluate(CHECKS)
            assert (seen["poor"], seen["outside"]) == ([], []), f"{scheme}, {width} wide"
            assert seen["sideways"] == 0
            assert seen["charts"] >= 6
            assert seen["areas"] >= 1
            assert seen["lines"] >= 5
            assert seen["faults"] == len(outcome.figures.faults)
            assert seen["requests"] == 0
            backgrounds.add(seen["background"])
        assert page.complaints == []
    assert len(backgrounds) == 2


def test_names_cannot_break_the_page() -> None:
    nasty = '<b onload="x">&'
    marks = [Mark(1, 2, nasty)]
    for chart in (
        line_chart({nasty: [(0, 1), (10, 2)]}, 10, marks),
        area_chart({nasty: [(0, 1), (10, 2)]}, 10, marks),
        lane_chart({nasty: marks}, 10),
    ):
        assert "<b" not in chart
        ElementTree.fromstring(chart)


def test_a_run_without_anything_has_a_page_too() -> None:
    outcome = play(schedule(FleetPlan(nodes=1, hours=0.01, requests=0, operations=0, faults="none")))
    assert "None." in html_report(outcome)


@pytest.mark.parametrize(
    ("value", "ceiling"), [(0, 1), (0.3, 0.32), (1, 1), (7, 8), (31, 32), (99, 100), (120, 120)]
)
def test_axes_end_at_round_numbers(value: float, ceiling: float) -> None:
    assert nice_ceiling(value) == pytest.approx(ceiling)
