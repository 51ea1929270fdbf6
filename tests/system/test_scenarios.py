"""The scenarios that come along, against worker processes over real NATS; a frontend driven by hand."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from localai_worker.adapters.memory.frontend_nodes import Generation
from localai_worker.app.simulator.local_cluster import LocalCluster
from localai_worker.app.simulator.scenario.document import Scenario, parse_scenario
from localai_worker.app.simulator.scenario.run import Stage, library, missing_programs
from tests.system.nodes import with_python

# In every run; the others take minutes together.
_QUICK = {
    ("installs", "seed"),
    ("cold-model", "newer"),
    ("file-server", "seed"),
    ("exact-stop", "newer"),
    ("backend-logs", "newer"),
}


class Quiet:
    """A report for nobody."""

    @contextmanager
    def step(self, _what: str) -> Iterator[list[str]]:
        yield []


def cases() -> list[object]:
    return [
        pytest.param(
            scenario,
            generation,
            id=f"{scenario.file}-{generation}",
            marks=() if (scenario.file, generation) in _QUICK else pytest.mark.large,
        )
        for scenario in library()
        for generation in scenario.speak
    ]


@pytest.fixture(scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return await Stage.make(tmp_path_factory.mktemp("scenarios"))


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("scenario", "generation"), cases())
async def test_a_scenario_passes_against_our_worker(
    stage: Stage, scenario: Scenario, generation: Generation
) -> None:
    if missing := missing_programs(scenario):
        pytest.skip(f"not on PATH: {', '.join(missing)}")
    await stage.play(scenario, generation, Quiet())


async def test_a_step_that_fails_ends_the_scenario_and_leaves_nothing(stage: Stage) -> None:
    document = {"name": "impossible", "steps": [{"node": {"node": "a"}, "expect": {"status": "offline"}}]}
    with pytest.raises(ExceptionGroup) as failed:
        await stage.play(parse_scenario(document, "here"), "newer", Quiet())
    assert "'healthy' instead of 'offline'" in "".join(map(str, leaves(failed.value)))


def leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in leaves(each)]
    return [error]


async def test_a_frontend_is_driven_by_lines_and_joined_by_any_worker(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    """The worker here is ours; the frontend knows no more of it than its registration."""
    frontend = subprocess.Popen(
        [
            *(sys.executable, "-m", "localai_worker", "simulate", "frontend"),
            *("--nats-url", f"nats://127.0.0.1:{cluster.nats_port}", "--http-addr", "127.0.0.1:0"),
            *("--token", cluster.token, "--models", str(tmp_path / "models")),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={key: value for key, value in os.environ.items() if not key.startswith("LOCALAI_")},
    )
    try:
        assert frontend.stdout
        assert frontend.stdin
        url = frontend.stdout.readline().split()[1]
        await cluster.start_worker("joined", with_python({"LOCALAI_REGISTER_TO": url}))
        frontend.stdin.write(
            "wait joined\nfiles '{w.bin: {bytes: 1000}}'\n"
            "model phi playable options='{Model: w.bin, ModelFile: w.bin}'\n"
            "infer phi fields='{Prompt: by hand}'\nstop phi\nunknown\nquit\n"
        )
        frontend.stdin.flush()
        told, _ = frontend.communicate(timeout=100)
    finally:
        frontend.kill()
        frontend.wait()
    assert '"prompt": "by hand"' in told
    assert "! unknown: unknown; there are" in told
    assert frontend.returncode == 1  # a line failed


async def test_a_signal_ends_the_frontend(cluster: LocalCluster) -> None:
    frontend = subprocess.Popen(
        [
            *(sys.executable, "-m", "localai_worker", "simulate", "frontend"),
            *("--nats-url", f"nats://127.0.0.1:{cluster.nats_port}", "--http-addr", "127.0.0.1:0"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert frontend.stdout
        assert "help" in [*(frontend.stdout.readline() for _ in range(3))][-1]
        frontend.send_signal(signal.SIGTERM)
        assert frontend.wait(timeout=30) == 130
    finally:
        frontend.kill()
        frontend.wait()
