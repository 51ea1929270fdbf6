"""The demo's story, told to whatever cluster it is given: real parts, or everything in memory."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import anyio

from ...domain.errors import BackendUnavailable, WorkerError
from ...domain.galleries import Gallery
from ...domain.messages.backend_list import NodeBackendInfo
from ...domain.node import NodeId
from ...domain.ports.backend_client import ModelToLoad
from ..simulator.frontend import SimulatedFrontend
from .leftovers import Leftover
from .report import StepReport

BACKEND = "minilm"
MODEL = "all-MiniLM-L6-v2"
SENTENCES = ("A man is eating food.", "A man eats something.", "The stock market fell.")
_ROUNDING = 0.005  # two decimals
_SAME = 0.9999  # the cosine of one text's embeddings by one model is 1
_GONE_S = 30.0  # a stop takes Free and the grace at the most


@dataclass(eq=False)
class DemoFailed(WorkerError):
    """Something in the story did not go as it must."""

    reason: str

    def __str__(self) -> str:
        return self.reason


class Stage(Protocol):
    """A cluster of one worker for the story to play on."""

    @property
    def frontend(self) -> SimulatedFrontend: ...

    @property
    def node_name(self) -> str: ...

    @property
    def expected(self) -> tuple[float, float] | None:
        """The known cosines of the first sentence with the second and the third; None: only their order."""

    async def prepare_backend(self) -> tuple[Gallery, str]:
        """Put the example backend where a gallery lists it; returns the gallery and a remark."""

    async def start_worker(self) -> str:
        """Start the worker; returns a remark."""

    def model_files(self) -> Mapping[str, Path]:
        """Local files of the model, by the name they are staged under."""

    async def change_model(self) -> Mapping[str, Path]:
        """Change a file of the model in the object store; the model's files then, none without a store."""

    async def stop_worker(self) -> str:
        """Stop the worker in good order and wait for its end; returns a remark."""

    async def leftovers(self) -> Sequence[Leftover]:
        """What is still there although it should be gone."""


async def tell(stage: Stage, report: StepReport) -> None:
    """Play the story from the first step to the last.

    Raises:
        DemoFailed: a step went wrong; the text says what was expected.
        WorkerError: a part refused.
    """
    with report.step("pack the example backend, list it in a gallery") as detail:
        gallery, remark = await stage.prepare_backend()
        detail.append(remark)
    with report.step("start the worker") as detail:
        detail.append(await stage.start_worker())
    with report.step("the worker registers and is healthy") as detail:
        node = await stage.frontend.wait_for_node(stage.node_name, "healthy")
        await stage.frontend.wait_until_it_answers(node)
        detail.append(f"node {node}")
    with report.step(f"backend.install {BACKEND}: from the gallery to a running process") as detail:
        address = await stage.frontend.install(node, BACKEND, model_id=MODEL, galleries=(gallery,))
        detail.append(address)
    with report.step("backend.list shows it") as detail:
        detail.append(_described(await stage.frontend.list_backends(node)))
    with report.step("stage the model files, hashes verified") as detail:
        remote = await stage.frontend.stage_model(node, MODEL, stage.model_files())
        detail.append(", ".join(sorted(remote)))
    with report.step("LoadModel"):
        await stage.frontend.load_model(address, _loaded_from(remote))
    with report.step(f"embed {len(SENTENCES)} sentences") as detail:
        vectors = [await stage.frontend.embed(address, sentence) for sentence in SENTENCES]
        detail.append(f"{len(vectors[0])} dimensions")
    cosines = [[cosine(one, other) for other in vectors] for one in vectors]
    report.similarities(SENTENCES, cosines)
    _check_similarities(cosines, stage.expected)
    if changed := await stage.change_model():
        address = await _tell_of_the_change(stage, report, node, gallery, changed, vectors[0], address)
    with report.step("backend.stop ends the process"):
        await stage.frontend.stop(node, MODEL)
        await _until_gone(stage.frontend, address)
    with report.step("the worker stops: drain, deregister, exit") as detail:
        detail.append(await stage.stop_worker())
    with report.step("nothing is left: no process, no port, no temporary file"):
        if left := await stage.leftovers():
            raise DemoFailed("left behind: " + "; ".join(str(each) for each in left))


async def _tell_of_the_change(
    stage: Stage,
    report: StepReport,
    node: NodeId,
    gallery: Gallery,
    files: Mapping[str, Path],
    before: Sequence[float],
    old: str,
) -> str:
    """The same model again, with another object under one of its keys; the address it runs at then.

    Until now it answers at `old`.
    """
    with report.step("the model changes in the store: new bytes arrive") as detail:
        remote = await stage.frontend.stage_model(node, MODEL, files)
        for name, source in files.items():
            if await anyio.Path(remote[name]).read_bytes() != await anyio.Path(source).read_bytes():
                raise DemoFailed(f"{remote[name]} has not the bytes of the object now in the store")
        detail.append(", ".join(sorted(remote)))
    with report.step("load it anew: its embeddings differ") as detail:
        await stage.frontend.stop(node, MODEL)
        await _until_gone(stage.frontend, old)
        address = await stage.frontend.install(node, BACKEND, model_id=MODEL, galleries=(gallery,))
        await stage.frontend.load_model(address, _loaded_from(remote))
        likeness = cosine(before, await stage.frontend.embed(address, SENTENCES[0]))
        if likeness > _SAME:
            raise DemoFailed(f"the changed model computes what the old one did (cosine {likeness:.6f})")
        detail.append(f"cosine to before {likeness:.3f}")
    return address


def _loaded_from(remote: Mapping[str, str]) -> ModelToLoad:
    weights, tokenizer = remote["model.safetensors"], remote.get("tokenizer.json", "")
    return ModelToLoad(name="model.safetensors", file=weights, tokenizer=tokenizer)


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """The cosine of the angle between two vectors of one length."""
    product = math.fsum(a * b for a, b in zip(one, other, strict=True))
    return product / (math.hypot(*one) * math.hypot(*other))


def _check_similarities(cosines: Sequence[Sequence[float]], expected: tuple[float, float] | None) -> None:
    like, unlike = cosines[0][1], cosines[0][2]
    if not like > unlike:
        raise DemoFailed(f"like sentences ({like:.3f}) are no nearer than unlike ones ({unlike:.3f})")
    if expected and max(abs(like - expected[0]), abs(unlike - expected[1])) >= _ROUNDING:
        raise DemoFailed(
            f"the model computes {like:.3f} and {unlike:.3f}, not {expected[0]} and {expected[1]}"
        )


def _described(backends: Sequence[NodeBackendInfo]) -> str:
    if not any(backend.name == BACKEND for backend in backends):
        raise DemoFailed(f"backend.list does not show {BACKEND}: {backends}")
    return ", ".join(
        backend.name + (f" {backend.digest[:19]}" if backend.digest else "") for backend in backends
    )


async def _until_gone(frontend: SimulatedFrontend, address: str) -> None:
    with anyio.move_on_after(_GONE_S):
        while True:
            try:
                await frontend.inference.health(address, timeout_s=1)
            except BackendUnavailable:
                return
            await anyio.sleep(0.05)
    raise DemoFailed(f"{address} still answers {_GONE_S:g} s after backend.stop")
