"""A node that enrols at a frontend in memory, for tests in virtual time."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.adapters.memory.frontend import FrontendCall, InMemoryFrontend
from localai_worker.adapters.memory.frontend_client import InMemoryFrontendClient
from localai_worker.adapters.memory.frontend_nodes import NodeRow
from localai_worker.adapters.memory.hardware import InMemoryHardware
from localai_worker.adapters.memory.loop_clock import LoopClock
from localai_worker.domain.enrol import Enrolment
from localai_worker.domain.messages.node_status import LoadedModel
from localai_worker.domain.node import NodeId
from localai_worker.domain.node_identity import IdentityStore
from localai_worker.domain.node_report import NodeProfile
from localai_worker.domain.ports.filesystem import DiskSpace
from localai_worker.domain.ports.hardware import Gpu, Hardware, Memory

GIB = 2**30
TOKEN = "s3cret"
RAM = Memory(64 * GIB, 48 * GIB)
H100 = Gpu(vendor="nvidia", name="H100", total_bytes=80 * GIB, free_bytes=60 * GIB, compute_capability="9.0")
SILENT = Gpu(vendor="intel", name="Arc", total_bytes=16 * GIB, free_bytes=None)
SIZELESS = Gpu(vendor="vulkan", name="llvmpipe", total_bytes=None, free_bytes=5)
BUSY = LoadedModel(model_name="qwen", address="gpu-1:50052", state="loaded", in_flight=1)


class UnreadableDisk(InMemoryFileSystem):
    """A file system that does not tell its size."""

    async def space(self, path: Path) -> DiskSpace | None:
        return None


@dataclass
class Node:
    """A frontend, and a node that enrols there."""

    frontend: InMemoryFrontend = field(default_factory=lambda: InMemoryFrontend(token=TOKEN))
    hardware: InMemoryHardware = field(default_factory=lambda: InMemoryHardware(Hardware(ram=RAM)))
    filesystem: InMemoryFileSystem = field(default_factory=lambda: InMemoryFileSystem(capacity_bytes=GIB))
    profile: dict[str, Any] = field(default_factory=dict)
    token: str = TOKEN
    clients: int = 0
    identities: IdentityStore = field(init=False)

    def __post_init__(self) -> None:
        self.identities = IdentityStore(InMemoryFileSystem(), Path("/state/identity.json"))

    async def busy(self) -> bool:
        return self.clients > 0

    def enrolment(self) -> Enrolment:
        return Enrolment(
            frontend=InMemoryFrontendClient(self.frontend, self.token),
            hardware=self.hardware,
            filesystem=self.filesystem,
            profile=NodeProfile(
                name="gpu-1",
                address="gpu-1:50051",
                http_address="gpu-1:50050",
                token=self.token,
                **self.profile,
            ),
            capability=lambda hardware: f"{hardware.vendor or 'no'}-gpu",
            busy=self.busy,
            identities=self.identities,
            frontend_url="http://frontend:8080",
        )

    def calls(self, endpoint: str = "") -> list[FrontendCall]:
        return [call for call in self.frontend.calls if endpoint in {"", call.endpoint}]

    def came_at_s(self, endpoint: str) -> list[float]:
        """When the calls came, in seconds since the start of the loop."""
        return [(call.came_at - ZERO).total_seconds() for call in self.calls(endpoint)]

    def sent(self, endpoint: str) -> dict[str, Any]:
        """The latest body."""
        body: dict[str, Any] = json.loads(self.calls(endpoint)[-1].body)
        return body

    @property
    def row(self) -> NodeRow:
        row = self.frontend.named("gpu-1")
        assert row is not None
        return row


ZERO = LoopClock().start


async def no_move(old: NodeId, new: NodeId) -> None:
    """The node must not change its id here."""
    assert old == new
