"""Run every benchmark and rewrite the tables in docs/benchmarks.md."""

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
    """Each benchmark in a process of its own, one after another."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run_all")
    parser.add_argument("--quick", action="store_true")
    quick = ["--quick"] if parser.parse_args().quick else []
    tables = []
    for name in BENCHMARKS:
        ran = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *quick], cwd=_ROOT, stdout=subprocess.PIPE, text=True
        )
        print(ran.stdout)
        if ran.returncode:
            sys.exit(f"benchmarks.{name} failed with exit code {ran.returncode}")
        tables.append(_table(json.loads(ran.stdout.splitlines()[-1]), quick))
    head = _PAGE.read_text().partition(_MARK)[0]
    _PAGE.write_text(f"{head}{_MARK}\n\n" + "\n".join(tables))


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
