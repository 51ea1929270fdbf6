"""Run every benchmark, or those that are named, and rewrite their tables in docs/benchmarks.md."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent
_PAGE = _ROOT / "docs" / "benchmarks.md"
_MARK = "<!-- tables below are written by `make bench` -->"
BENCHMARKS = (
    "commands",
    "fleet",
    "footprint",
    "galleries",
    "install",
    "object_store",
    "ready",
    "recovery",
    "transfer",
)


def main() -> None:
    """Each in a process of its own, one after another; a table is written as soon as it is there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run_all")
    parser.add_argument("names", nargs="*", choices=(*BENCHMARKS, []), help="all of them by default")
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    quick = ["--quick"] if asked.quick else []
    for name in asked.names or BENCHMARKS:
        ran = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *quick], cwd=_ROOT, stdout=subprocess.PIPE, text=True
        )
        print(ran.stdout)
        if ran.returncode:
            sys.exit(f"benchmarks.{name} failed with exit code {ran.returncode}")
        _write(name, _table(json.loads(ran.stdout.splitlines()[-1]), quick))


def _write(name: str, table: str) -> None:
    """Put `table` on the page in place of the one of that name."""
    head, _, tables = _PAGE.read_text().partition(_MARK)
    sections = {part.split("\n", 1)[0]: f"## {part.strip()}\n" for part in tables.split("## ")[1:]}
    sections[name] = table
    text = "\n".join(sections[each] for each in BENCHMARKS if each in sections)
    _PAGE.write_text(f"{head}{_MARK}\n\n{text}")


def _table(result: dict[str, Any], quick: list[str]) -> str:
    command = " ".join([".venv/bin/python -m", f"benchmarks.{result['name']}", *quick])
    lines = [
        f"## {result['name']}",
        "",
        f"`{command}` at {result['commit']} on {result['machine']}",
        "",
        "| row | value | goal | met |",
        "|---|---|---|---|",
    ]
    for row, ratio in result["ratios"].items():
        lines.append(
            f"| {row} | {ratio['value']:g} | {ratio['goal']:g} | {'yes' if ratio['met'] else 'missed'} |"
        )
    lines += [f"| {name} | {value:g} | | |" for name, value in result["figures"].items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
