"""What every benchmark shares: figures, ratios with their goals, a readable table and one JSON line.

    .venv/bin/python -m benchmarks.NAME [--quick]

The last line printed is one JSON object:
`{"name", "machine", "figures", "ratios": {row: {"value", "goal", "met"}}, "commit"}`.
"""

import argparse
import json
import platform
import statistics
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import psutil
from rich.console import Console
from rich.table import Table

_ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Report:
    """The outcome of one benchmark. `figures` carry their unit in the name; `ratios` have goals."""

    name: str
    figures: dict[str, float] = field(default_factory=dict)
    ratios: dict[str, dict[str, float | bool]] = field(default_factory=dict)

    def figure(self, name: str, value: float) -> None:
        """Record a measured value."""
        self.figures[name] = round(value, 4)

    def at_most(self, row: str, value: float, goal: float) -> None:
        """Record a value that should not exceed `goal`."""
        self.ratios[row] = {"value": round(value, 4), "goal": goal, "met": value <= goal}

    def at_least(self, row: str, value: float, goal: float) -> None:
        """Record a value that should reach `goal`."""
        self.ratios[row] = {"value": round(value, 4), "goal": goal, "met": value >= goal}

    def as_json(self) -> str:
        """The last line."""
        return json.dumps(
            {
                "name": self.name,
                "machine": machine(),
                "figures": self.figures,
                "ratios": self.ratios,
                "commit": commit(),
            }
        )

    def print(self) -> None:
        """Print the table and the JSON line."""
        table = Table(title=self.name)
        for column in ("row", "value", "goal", "met"):
            table.add_column(column)
        for name, value in self.figures.items():
            table.add_row(name, f"{value:g}", "", "")
        for row, ratio in self.ratios.items():
            met = "yes" if ratio["met"] else "MISSED"
            table.add_row(row, f"{ratio['value']:g}", f"{ratio['goal']:g}", met)
        Console().print(table)
        print(self.as_json())


def run(name: str, measure: Callable[[Report, bool], Awaitable[None]]) -> None:
    """Parse `--quick`, measure, print."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}")
    parser.add_argument("--quick", action="store_true", help="end within 60 s, with fewer repetitions")
    quick = parser.parse_args().quick
    report = Report(name)
    anyio.run(measure, report, quick)
    report.print()


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` (0 to 1) of `values` lies, interpolated."""
    if len(values) < 2:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[max(round(share * 100) - 1, 0)]


def machine() -> str:
    """Processor, cores, memory and Python, in one line."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    gib = psutil.virtual_memory().total / 2**30
    return f"{model}, {psutil.cpu_count()} cores, {gib:.0f} GiB, Python {platform.python_version()}"


def commit() -> str:
    """The commit measured; marked when the tree differs from it."""
    try:
        named = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=_ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return named.stdout.strip()
