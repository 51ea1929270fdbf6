"""`localai-worker demo` as a user runs it: told to its end or broken off, nothing stays."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import psutil
import pytest
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream

from localai_worker.app.demo.distributions import model_files
from localai_worker.app.demo.leftovers import processes_of
from localai_worker.domain.errors import WorkerError
from tests.servers import find_executable

DEMO_S = 100.0
REPOSITORY = Path(__file__).parents[2]


@dataclass
class Demo:
    """A demo that runs, with `tmp` as its temporary directory."""

    process: Process
    tmp: Path
    output: str = ""
    errors: str = ""
    ended: anyio.Event = field(default_factory=anyio.Event)

    async def until_told(self, step: str) -> None:
        """Wait until `step` stands on the screen."""
        with anyio.fail_after(DEMO_S):
            while step not in self.output:
                assert not self.ended.is_set(), self.output + self.errors
                await anyio.sleep(0.005)

    async def exit_code(self) -> int:
        with anyio.fail_after(DEMO_S):
            await self.ended.wait()
            return await self.process.wait()

    def worker(self) -> psutil.Process:
        """The worker process it started."""
        children = psutil.Process(self.process.pid).children()
        (worker,) = [child for child in children if "localai_worker" in child.cmdline()]
        return worker

    def assert_nothing_is_left(self) -> None:
        assert list(self.tmp.iterdir()) == []
        assert [process.cmdline() for process in processes_of(self.tmp)] == []

    async def read(self) -> None:
        async def read_errors() -> None:
            assert self.process.stderr is not None
            async for text in TextReceiveStream(self.process.stderr):
                self.errors += text

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read_errors)
            assert self.process.stdout is not None
            async for text in TextReceiveStream(self.process.stdout):
                self.output += text
        self.ended.set()


@asynccontextmanager
async def running_demo(tmp: Path, *arguments: str) -> AsyncIterator[Demo]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOCALAI_")}
    process = await anyio.open_process(
        [sys.executable, "-m", "localai_worker", "demo", *arguments],
        cwd=REPOSITORY,
        env={**environment, "TMPDIR": str(tmp), "PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
    )
    demo = Demo(process, tmp)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(demo.read)
        try:
            yield demo
        finally:
            if process.returncode is None:
                process.kill()


@pytest.fixture
def tmp(tmp_path: Path) -> Path:
    """A temporary directory of the demo's own, by the path it resolves to."""
    directory = tmp_path.resolve() / "tmp"
    directory.mkdir()
    return directory


@pytest.fixture
def real_parts() -> None:
    """Skips where the real demo cannot run."""
    find_executable("nats-server")
    try:
        model_files()
    except WorkerError as error:
        pytest.skip(str(error))


async def test_the_demo_in_memory_ends_well_and_leaves_nothing(tmp: Path) -> None:
    async with running_demo(tmp, "--bus", "memory") as demo:
        assert await demo.exit_code() == 0, demo.errors
    assert demo.output.splitlines()[-1] == "demo: ok"
    assert demo.errors == ""
    demo.assert_nothing_is_left()


@pytest.mark.usefixtures("real_parts")
async def test_the_real_demo_computes_the_published_similarities_and_leaves_nothing(tmp: Path) -> None:
    async with running_demo(tmp) as demo:
        assert await demo.exit_code() == 0, demo.errors
    assert demo.output.splitlines()[-1] == "demo: ok"
    assert "0.875" in demo.output
    assert "-0.036" in demo.output
    assert demo.errors == ""
    demo.assert_nothing_is_left()


@pytest.mark.large
@pytest.mark.usefixtures("real_parts")
async def test_the_demo_through_an_object_store_goes_on_with_a_changed_model(tmp: Path) -> None:
    """S-K05: the second time the same key brings new bytes, and the model computes something else."""
    find_executable("rclone")
    async with running_demo(tmp, "--storage", "s3") as demo:
        assert await demo.exit_code() == 0, demo.errors
    assert demo.output.splitlines()[-1] == "demo: ok"
    assert "0.875" in demo.output
    assert "new bytes arrive" in demo.output
    assert demo.errors == ""
    demo.assert_nothing_is_left()


AFTER_INSTALL = "from the gallery to a running process"
# Eight seconds each: all but the most telling one are for those who have the time.
OTHER_STEPS = tuple(
    pytest.param(step, marks=pytest.mark.large)
    for step in (
        "start the worker",
        "the worker registers and is healthy",
        "stage the model files",
        "LoadModel",
    )
)


@pytest.mark.usefixtures("real_parts")
@pytest.mark.parametrize("step", [AFTER_INSTALL, *OTHER_STEPS])
async def test_a_killed_worker_is_told_and_what_it_left_is_cleared_away(tmp: Path, step: str) -> None:
    """Its backends outlive it; the demo does not leave them."""
    async with running_demo(tmp) as demo:
        await demo.until_told(step)
        demo.worker().kill()
        assert await demo.exit_code() == 1, demo.output
    assert "the worker process demo-node ended (killed by signal 9) in the middle of its work" in demo.errors
    assert "Traceback" not in demo.errors
    assert "demo: ok" not in demo.output
    demo.assert_nothing_is_left()


@pytest.mark.large
@pytest.mark.usefixtures("real_parts")
@pytest.mark.parametrize("step", ["pack the example backend", AFTER_INSTALL, *OTHER_STEPS])
async def test_an_interrupted_demo_cleans_up(tmp: Path, step: str) -> None:
    async with running_demo(tmp) as demo:
        await demo.until_told(step)
        demo.process.send_signal(signal.SIGINT)
        assert await demo.exit_code() == 130, demo.errors
    assert demo.output.splitlines()[-1] == "demo: interrupted, everything is cleaned up"
    assert demo.errors == ""
    demo.assert_nothing_is_left()


@pytest.mark.usefixtures("real_parts")
async def test_an_impatient_user_who_interrupts_again_gets_the_same(tmp: Path) -> None:
    async with running_demo(tmp) as demo:
        await demo.until_told(AFTER_INSTALL)
        (log,) = demo.tmp.glob("*/demo-node/worker.log")
        demo.process.send_signal(signal.SIGINT)
        with anyio.fail_after(DEMO_S):
            while "stopping" not in log.read_text():
                await anyio.sleep(0.005)
        demo.process.send_signal(signal.SIGINT)
        assert await demo.exit_code() == 130, demo.errors
    assert demo.output.splitlines()[-1] == "demo: interrupted, everything is cleaned up"
    assert demo.errors == ""
    demo.assert_nothing_is_left()
