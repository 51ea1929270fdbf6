"""gRPC calls under anyio: time limits of the caller hold whatever grpcio makes of a cancellation.

In a process of its own: grpcio delivers what is left of a cancelled call later, and if the loop is closed
by then, as after a test, to whichever loop comes next.
"""

import subprocess
import sys

_SCRIPT = """
import socket
import anyio
from localai_worker.adapters.grpc import calls


async def limited(mute):
    with anyio.move_on_after(0.1) as limit:
        await calls.health(mute, "", timeout_s=30)
    assert limit.cancelled_caught
    await anyio.lowlevel.checkpoint()


async def grouped(mute):
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(lambda: calls.health(mute, "", timeout_s=30))
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()


async def main():
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections and never says a word
        mute = "{}:{}".format(*server.getsockname())
        for _ in range(20):
            await limited(mute)
        await grouped(mute)
    print("held")


anyio.run(main)
"""


def test_a_time_limit_around_a_call_ends_the_call_and_nothing_else() -> None:
    """The cancellation used to leave its scope: an install was answered as if the worker was going down."""
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "held\n"), done.stderr


def test_first_calls_at_once_all_find_the_whole_library() -> None:
    """A second call met a module that the first was still loading, and failed with an AttributeError."""
    code = (
        "import anyio, socket\n"
        "from localai_worker.adapters.grpc.backend_client import GrpcBackendClient\n"
        "from localai_worker.domain.errors import BackendUnavailable\n"
        "with socket.socket() as taken:\n"
        "    taken.bind(('127.0.0.1', 0))\n"
        "    address = f'127.0.0.1:{taken.getsockname()[1]}'\n"
        "    async def call():\n"
        "        try:\n"
        "            await GrpcBackendClient().health(address, timeout_s=20)\n"
        "        except BackendUnavailable:\n"
        "            print('unavailable')\n"
        "    async def main():\n"
        "        async with anyio.create_task_group() as tasks:\n"
        "            for _ in range(30):\n"
        "                tasks.start_soon(call)\n"
        "                await anyio.sleep(0.01)\n"
        "    anyio.run(main)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100
    )
    assert done.stdout.split() == ["unavailable"] * 30
