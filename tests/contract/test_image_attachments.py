"""What is attached to images: fake and registry keep the port's promises."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from localai_worker.adapters.artifacts.registry.attachments import RegistryAttachments
from localai_worker.adapters.memory.artifacts import InMemoryAttachments
from localai_worker.domain.errors import ArtifactInvalid, ArtifactUnavailable, UnsupportedSource
from localai_worker.domain.ports.artifacts import OLD_SIGNATURE, AttachedArtifact, ImageAttachments
from tests import archives
from tests.docker_registry import docker_registry
from tests.registry import Image, OwnRegistry, own_registry, registry_images

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
ATTACHED = (
    AttachedArtifact("application/spdx+json", b"{}"),
    AttachedArtifact(BUNDLE, b"1"),
    AttachedArtifact(BUNDLE, b"2"),
)
IMAGE = Image([archives.tree_tar({"run.sh": b""})])
OLD = Image([b"signed"], OLD_SIGNATURE)  # as cosign 2 leaves it


@dataclass
class Stage:
    """An image with things attached to it, and one without; `unplug` takes their registry away."""

    attachments: ImageAttachments
    uri: str
    unplug: Callable[[], None]

    async def contents(self, artifact_type: str, digest: str = IMAGE.digest) -> Sequence[bytes]:
        found = await self.attachments.attached(self.uri, digest, artifact_type=artifact_type)
        return [each.content for each in found]


def memory_stage() -> Stage:
    old = AttachedArtifact(OLD_SIGNATURE, b"signed")
    memory = InMemoryAttachments({("oci://r.invalid/b:1", IMAGE.digest): [old, *ATTACHED]})

    def unplug() -> None:
        memory.offline = True

    return Stage(memory, "oci://r.invalid/b:1", unplug)


@contextmanager
def registry_stage(top: Path, *, has_referrers: bool) -> Iterator[tuple[Stage, OwnRegistry]]:
    with own_registry(has_referrers=has_referrers) as own:
        uri = own.pushed.push(IMAGE)
        for each in ATTACHED:
            own.attach(IMAGE, each.artifact_type, each.content)
        own.pushed.push(OLD, f"{IMAGE.digest.replace(':', '-')}.sig")
        yield Stage(RegistryAttachments(registry_images(top).client), uri, own.close), own


@contextmanager
def docker_stage(top: Path) -> Iterator[Stage]:
    """A registry of which everybody has one: it knows no referrers."""
    with docker_registry(top) as real:
        uri = real.push(IMAGE)
        for each in ATTACHED:
            real.attach(IMAGE, each.artifact_type, each.content)
        real.push(OLD, f"{IMAGE.digest.replace(':', '-')}.sig")
        yield Stage(RegistryAttachments(registry_images(top).client), uri, real.stop)


@pytest.fixture(params=["memory", "referrers API", "referrers tag", "docker-registry"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    if request.param == "memory":
        yield memory_stage()
    elif request.param == "docker-registry":
        with docker_stage(tmp_path) as stage:
            yield stage
    else:
        with registry_stage(tmp_path, has_referrers=request.param == "referrers API") as (stage, _):
            yield stage


async def test_what_is_attached_comes_in_order_and_only_of_the_type_asked_for(stage: Stage) -> None:
    assert await stage.contents("application/vnd.dev.sigstore.bundle.") == [b"1", b"2"]
    assert await stage.contents("application/") == [b"{}", b"1", b"2"]
    found = await stage.attachments.attached(stage.uri, IMAGE.digest, artifact_type=BUNDLE)
    assert {each.artifact_type for each in found} == {BUNDLE}


async def test_an_old_signature_is_found_by_its_own_type_alone(stage: Stage) -> None:
    assert await stage.contents(OLD_SIGNATURE) == [b"signed"]
    assert b"signed" not in await stage.contents("application/")
    assert await stage.contents(OLD_SIGNATURE, f"sha256:{'1' * 64}") == []


async def test_nothing_attached_is_no_error(stage: Stage) -> None:
    assert await stage.contents("application/", f"sha256:{'1' * 64}") == []


async def test_a_registry_that_does_not_answer_is_told_from_nothing_attached(stage: Stage) -> None:
    stage.unplug()
    with pytest.raises(ArtifactUnavailable):
        await stage.contents("")


async def test_only_images_in_registries_have_attachments(tmp_path: Path) -> None:
    attachments = RegistryAttachments(registry_images(tmp_path).client)
    with pytest.raises(UnsupportedSource):
        await attachments.attached("ocifile:///x.tar", IMAGE.digest, artifact_type="")


async def test_content_that_is_not_what_its_digest_says_is_refused(tmp_path: Path) -> None:
    with registry_stage(tmp_path, has_referrers=True) as (stage, own):
        key = ("team/backend", "blobs", archives.digest_of(b"2"))
        own.stored[key] = (b"forged", BUNDLE)
        with pytest.raises(ArtifactInvalid, match="blob sha256:"):
            await stage.contents(BUNDLE)


async def test_content_larger_than_any_signature_is_refused(tmp_path: Path) -> None:
    with registry_stage(tmp_path, has_referrers=True) as (stage, own):
        own.attach(IMAGE, BUNDLE, bytes((4 << 20) + 1))
        with pytest.raises(ArtifactInvalid, match="larger than 4194304"):
            await stage.contents(BUNDLE)
