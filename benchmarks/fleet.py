"""What a simulated fleet costs: CPU time and memory of nodes that live through one virtual hour.

Each is one process on one core, so CPU time is what counts; wall time is printed beside it. The peer is the
same loop with as many tasks as nodes that do nothing but sleep 10 s, over and over.
"""

import subprocess
import sys
import time
from dataclasses import dataclass

import anyio
import psutil

from benchmarks.harness import Report, run
from localai_worker.app.simulator.fleet.faults import schedule
from localai_worker.app.simulator.fleet.plan import FleetPlan
from localai_worker.app.simulator.fleet.simulation import play
from localai_worker.app.virtual_time import run_in_virtual_time

_GOAL_S = 60.0
_GOAL_KIB = 200.0
_FLAT = 1.5  # how much more a node-hour may cost in the largest fleet than in the smallest


@dataclass(frozen=True)
class Cost:
    """Of one simulation, in seconds and KiB."""

    cpu_s: float
    wall_s: float
    peak_kib: float


def in_a_process(nodes: int, hours: float, faults: str) -> Cost:
    """Simulate in a process of its own, whose memory is nobody else's."""
    command = [sys.executable, "-m", "benchmarks.fleet", "--one", str(nodes), str(hours), faults]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return Cost(*map(float, printed.split()[-3:]))


def one(nodes: int, hours: float, faults: str) -> None:
    """What the process does: print CPU and wall seconds, and the most memory it had meanwhile in KiB."""
    if faults in {"idle", "asleep"}:
        plan = FleetPlan(nodes=nodes, hours=hours, seed=1, faults="none", models=1, requests=0, operations=0)
    else:
        plan = FleetPlan(nodes=nodes, hours=hours, seed=1, faults=faults)
    case = schedule(plan)
    kib = [0.0]

    def look(_at_s: float) -> None:
        kib.append(psutil.Process().memory_info().rss / 1024)

    began = time.process_time(), time.perf_counter()
    if faults == "asleep":
        run_in_virtual_time(sleepers, nodes, hours)
    elif (outcome := play(case, look)).violation is not None:
        raise SystemExit(f"an invariant does not hold: {outcome.violation}")
    print(time.process_time() - began[0], time.perf_counter() - began[1], max(kib))


async def sleepers(count: int, hours: float) -> None:
    """The least a node can do: wait for its next heartbeat."""

    async def beat(first_s: float) -> None:
        await anyio.sleep(first_s)
        while True:
            await anyio.sleep(10)

    async with anyio.create_task_group() as tasks:
        for number in range(count):
            tasks.start_soon(beat, 10 * number / count)
        await anyio.sleep(hours * 3600)
        tasks.cancel_scope.cancel()


async def measure(report: Report, quick: bool) -> None:
    hour = in_a_process(200, 0.5, "default") if quick else in_a_process(1000, 1.0, "default")
    node_hours = 100 if quick else 1000
    report.figure("node_hours", node_hours)
    report.figure("cpu_s", hour.cpu_s)
    report.figure("wall_s", hour.wall_s)
    report.at_most("1,000 nodes, 1 h, default faults (CPU s)", hour.cpu_s * 1000 / node_hours, _GOAL_S)

    sizes, hours = ((100, 500), 0.1) if quick else ((100, 1000, 10_000), 0.25)
    costs = [in_a_process(size, hours, "default").cpu_s / (size * hours) * 1000 for size in sizes]
    for size, cost in zip(sizes, costs, strict=True):
        report.figure(f"node_hour_of_{size}_nodes_cpu_ms", cost)
    report.at_most(f"node-hour of {sizes[-1]:,} nodes / of {sizes[0]:,}", costs[-1] / costs[0], _FLAT)
    asleep_s = in_a_process(sizes[0], hours, "asleep").cpu_s
    report.figure("node_hour_of_sleeping_tasks_cpu_ms", asleep_s / (sizes[0] * hours) * 1000)

    few, many = (50, 550) if quick else (100, 2100)
    idle_kib = [in_a_process(size, 0.05, "idle").peak_kib for size in (few, many)]
    report.at_most("memory of an idle node (KiB)", (idle_kib[1] - idle_kib[0]) / (many - few), _GOAL_KIB)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(int(sys.argv[2]), float(sys.argv[3]), sys.argv[4])
    else:
        run("fleet", measure)
