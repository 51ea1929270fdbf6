"""A simulated frontend that real workers join, whoever wrote and started them."""

import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
from anyio import to_thread
from anyio.abc import TaskStatus

from ....adapters.grpc.backend_client import GrpcBackendClient
from ....adapters.http_server.serve import HttpServer
from ....adapters.memory.frontend import InMemoryFrontend
from ....adapters.memory.frontend_nodes import Generation
from ....adapters.nats.bus import NatsMessageBus
from ....adapters.system_clock import SystemClock
from ....domain.galleries import Gallery
from ..frontend import SimulatedFrontend
from ..frontend_http import frontend_app
from ..housekeeping import Housekeeping
from ..live import LiveFrontend
from ..playable_image import gallery_index, pack_playable
from .document import Scenario
from .log_verbs import LogVerbs
from .model_verbs import ModelVerbs
from .node_verbs import NodeVerbs
from .player import Player, Telling
from .prompt import Prompt
from .run import call
from .verbs import Verbs
from .wire_verbs import WireVerbs

_CONNECTS_S = 20.0


@dataclass(frozen=True, kw_only=True)
class FrontendOptions:
    """What a simulated frontend is started with. `galleries`: URLs of indexes besides the playable backend's.

    `reach` is the host by which workers reach this frontend's HTTP server.
    """

    nats_url: str
    host: str
    port: int
    reach: str
    token: str
    generation: Generation
    approve: bool
    galleries: Sequence[str]
    models: Path | None


@asynccontextmanager
async def live_frontend(options: FrontendOptions) -> AsyncIterator[tuple[LiveFrontend, Verbs, int]]:
    """The frontend while it is up, the verbs to drive it, and its HTTP port.

    Raises:
        WorkerError: the port is taken.
        TimeoutError: NATS does not answer.
    """
    with tempfile.TemporaryDirectory(prefix="localai-worker-frontend-") as scratch:
        models = options.models or Path(scratch) / "models"
        models.mkdir(parents=True, exist_ok=True)
        archive = Path(scratch) / "playable.tar"
        await to_thread.run_sync(pack_playable, archive)
        registry = InMemoryFrontend(token=options.token, clock=SystemClock(), generation=options.generation)
        registry.auto_approve = options.approve
        documents = {"gallery.yaml": gallery_index(archive)}
        http = HttpServer(frontend_app(registry, documents), options.host, options.port)
        bus = NatsMessageBus(options.nats_url, client_name="simulated-frontend")
        async with anyio.create_task_group() as tasks:
            port: int = await tasks.start(http.serve)
            try:
                with anyio.fail_after(_CONNECTS_S):
                    await bus.open()
                commands = SimulatedFrontend(
                    bus=bus,
                    registry=registry,
                    inference=GrpcBackendClient(options.token),
                    token=options.token,
                )
                urls = (f"http://{options.reach}:{port}/documents/gallery.yaml", *options.galleries)
                galleries = [Gallery(f"gallery-{number}", url) for number, url in enumerate(urls)]
                live = LiveFrontend(commands, partial(call, options.token), models, galleries)
                tasks.start_soon(Housekeeping(live).run)
                groups = (NodeVerbs(live, tasks), ModelVerbs(live), WireVerbs(live), LogVerbs(live, tasks))
                yield live, Verbs(*groups), port
            finally:
                with anyio.CancelScope(shield=True):
                    await bus.close()
            tasks.cancel_scope.cancel()


async def serve_by_hand(options: FrontendOptions, report: Telling, scenarios: Sequence[Scenario]) -> int:
    """Play `scenarios` on the workers that joined, then obey the lines of stdin; the exit code.

    Raises:
        StepFailed: of a scenario.
    """
    async with live_frontend(options) as (_, verbs, port), anyio.create_task_group() as tasks:
        await tasks.start(_until_signalled, tasks.cancel_scope)
        say(f"frontend: http://{options.reach}:{port} speaks {options.generation}; NATS: {options.nats_url}")
        say(
            "start workers with LOCALAI_REGISTER_TO, LOCALAI_NATS_URL and LOCALAI_REGISTRATION_TOKEN to match"
        )
        for scenario in scenarios:
            for node in scenario.nodes:
                await verbs.call("wait", {"node": node})
            await Player(verbs, report).play(scenario.steps)
        prompt = Prompt(verbs, say)
        if not scenarios:
            say("type help for the verbs, quit to end")
            await prompt.obey(_lines())
        tasks.cancel_scope.cancel()
        return 1 if prompt.failed and not sys.stdin.isatty() else 0
    return 130


def say(text: str) -> None:
    """One line on stdout, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def _lines() -> AsyncIterator[str]:
    """The lines of stdin. No thread reads them: one that waits for a key would outlive a signal."""
    descriptor, rest = sys.stdin.fileno(), b""
    while True:
        with suppress(PermissionError):  # a regular file, which is always readable
            await anyio.wait_readable(descriptor)
        chunk = os.read(descriptor, 65536)
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")
        if not chunk:
            if rest:
                yield rest.decode(errors="replace")
            return


async def _until_signalled(scope: anyio.CancelScope, *, task_status: TaskStatus[None]) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            scope.cancel()
            return
