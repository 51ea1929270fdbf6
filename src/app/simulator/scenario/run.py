"""Playing whole scenarios on a cluster of real parts made for them."""

import itertools
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio
from anyio import to_thread

from ....adapters.grpc.any_call import call_by_name
from ....adapters.memory.frontend_nodes import Generation
from ....domain.errors import WorkerError
from ....domain.galleries import Gallery
from ...startup import leaves
from ..live import LiveFrontend
from ..local_cluster import LocalCluster, local_cluster
from ..nats_users import NatsUsers
from ..playable_image import PLAYABLE, gallery_index, pack_playable
from ..shared_store import shared_store
from .document import Scenario, read_scenario
from .fault_verbs import FaultVerbs
from .log_verbs import LogVerbs
from .model_verbs import ModelVerbs
from .node_verbs import NodeVerbs
from .player import Player, Telling
from .verbs import Verbs
from .wire_verbs import WireVerbs

LIBRARY = Path(__file__).parent / "library"
_NAMES = (PLAYABLE, f"{PLAYABLE}-other")
_HEARTBEAT = "1s"


def library() -> tuple[Scenario, ...]:
    """The scenarios that come with the package, by file name."""
    return tuple(read_scenario(path) for path in sorted(LIBRARY.glob("*.yaml")))


@dataclass(frozen=True)
class Stage:
    """What scenarios are played with: an archive of the playable backend, packed once."""

    directory: Path
    archive: Path
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @classmethod
    async def make(cls, directory: Path) -> "Stage":
        """Pack the backend below `directory`.

        Raises:
            DistributionMissing: the libraries to pack are not installed; the demo extra brings them.
        """
        archive = directory / f"{PLAYABLE}.tar"
        await to_thread.run_sync(pack_playable, archive)
        return cls(directory, archive)

    async def play(self, scenario: Scenario, generation: Generation, report: Telling) -> None:
        """Play `scenario` on a cluster of its own, which is gone afterwards.

        Raises:
            StepFailed: a step did not come out as it says.
            WorkerError: the cluster could not be set up.
        """
        home = self.directory / f"{_file_name(scenario.name)}-{generation}-{next(self._numbers)}"
        home.mkdir()
        users = NatsUsers() if scenario.login else None
        async with (
            local_cluster(home, users=users) as cluster,
            shared_store(cluster, scenario.storage) as storage,
            anyio.create_task_group() as tasks,
        ):
            cluster.registry.generation = generation
            cluster.registry.auto_approve = scenario.approve
            live = await self.frontend(cluster, scenario.nodes, storage)
            groups = (NodeVerbs(live, tasks), ModelVerbs(live), WireVerbs(live), LogVerbs(live, tasks))
            await Player(Verbs(*groups, FaultVerbs(cluster)), report).play(scenario.steps)
            tasks.cancel_scope.cancel()

    async def frontend(
        self, cluster: LocalCluster, nodes: Mapping[str, Mapping[str, str]], storage: Mapping[str, str]
    ) -> LiveFrontend:
        """The frontend of `cluster`, its workers started with `storage`; approved ones answer."""
        url = cluster.publish("gallery.yaml", gallery_index(self.archive, _NAMES))
        models = cluster.directory / "frontend-models"
        models.mkdir()
        for name, settings in nodes.items():
            defaults = {"PYTHON": sys.executable, "LOCALAI_HEARTBEAT_INTERVAL": _HEARTBEAT}
            await cluster.start_worker(name, {**defaults, **storage, **settings})
        if cluster.registry.auto_approve:
            for name in nodes:
                node_id = await cluster.frontend.wait_for_node(name)
                await cluster.frontend.wait_until_it_answers(node_id)
        return LiveFrontend(
            cluster.frontend, partial(call, cluster.token), models, [Gallery("scenarios", url)]
        )


async def call(
    token: str, address: str, rpc: str, fields: Mapping[str, object], *, timeout_s: float
) -> dict[str, object]:
    """Call a backend with the cluster's token."""
    return await call_by_name(address, token, rpc, fields, timeout_s=timeout_s)


async def play_all(directory: Path, scenarios: Sequence[Scenario], speak: Generation | None) -> int:
    """Play `scenarios` one after the other, in every generation or only in `speak`; tell it on the terminal.

    Returns how many failed.
    """
    from rich.console import Console
    from rich.markup import escape

    from ...demo.report import StepReport

    console = Console(highlight=False)
    stage = await Stage.make(directory)
    played = failed = 0
    for scenario in scenarios:
        if missing := missing_programs(scenario):
            console.print(f"[yellow]skipped[/] {escape(scenario.name)}: no {', '.join(missing)} on PATH")
            continue
        for generation in scenario.speak:
            if speak not in {None, generation}:
                continue
            console.print(f"[bold]{escape(scenario.name)}[/], {generation}")
            played += 1
            try:
                await stage.play(scenario, generation, StepReport(console))
            except* WorkerError as group:
                failed += 1
                for error in leaves(group):
                    console.print(f"[red]✗ {escape(str(error))}[/]")
    console.print(f"scenarios: {played - failed} of {played} passed")
    return failed


def _file_name(name: str) -> str:
    return "".join(char if char.isalnum() else "-" for char in name)[:40]


def missing_programs(scenario: Scenario) -> Sequence[str]:
    """What `scenario` needs and this machine has not."""
    return [program for program in scenario.needs if shutil.which(program) is None]
