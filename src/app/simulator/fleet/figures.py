"""What a simulation is measured by: samples over time, latencies of commands, counts, faults."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from .plan import Fault

SAMPLES = 120  # over the whole run, whatever its length


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The fleet at one moment."""

    at_s: float
    nodes: dict[str, int]  # by the state the frontend sees; `unknown`: not in its registry
    workers: int  # processes that take commands
    wanted: int  # replicas the reconciler wants at least
    loaded: int  # rows the frontend could send requests to
    running: int  # backend processes that live
    ports_leased: int
    ports_resting: int


@dataclass
class Figures:
    """Everything the report shows. Latencies are seconds, by command and minute of the run."""

    samples: list[Sample] = field(default_factory=list)
    latencies: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)

    def took(self, command: str, at_s: float, seconds: float) -> None:
        """A command was answered at `at_s` after `seconds`."""
        self.latencies.setdefault(command, []).append((at_s, seconds))

    def count(self, what: str) -> None:
        self.counts[what] += 1

    def percentiles(self, command: str) -> tuple[float, float, float]:
        """p50, p95 and p99 of a command's latency in seconds; zeros without any."""
        values = sorted(seconds for _, seconds in self.latencies.get(command, ()))
        p50, p95, p99 = (percentile(values, share) for share in (0.5, 0.95, 0.99))
        return p50, p95, p99

    def to_json(self) -> dict[str, Any]:
        """The figures of the report as plain values."""
        last = self.samples[-1] if self.samples else None
        return {
            "counts": dict(sorted(self.counts.items())),
            "faults": dict(sorted(Counter(fault.kind for fault in self.faults).items())),
            "latency_s": {
                command: dict(zip(("p50", "p95", "p99"), self.percentiles(command), strict=True))
                for command in sorted(self.latencies)
            },
            "at_the_end": {
                "nodes": last.nodes,
                "workers": last.workers,
                "replicas_wanted": last.wanted,
                "replicas_loaded": last.loaded,
                "backends_running": last.running,
                "ports_leased": last.ports_leased,
                "ports_resting": last.ports_resting,
            }
            if last
            else {},
        }


def percentile(ordered: list[float], share: float) -> float:
    """The value below which `share` of the ordered values lies; 0 without any."""
    if not ordered:
        return 0.0
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]
