"""What is attached to images: the in-memory fake keeps the port's promises."""

import pytest

from localai_worker.adapters.memory.artifacts import InMemoryAttachments
from localai_worker.domain.errors import ArtifactUnavailable
from localai_worker.domain.ports.artifacts import AttachedArtifact, ImageAttachments

URI = "oci://r.invalid/b:1"
DIGEST = f"sha256:{'0' * 64}"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"


@pytest.fixture
def attachments() -> ImageAttachments:
    return InMemoryAttachments(
        {
            (URI, DIGEST): [
                AttachedArtifact("application/spdx+json", b"{}"),
                AttachedArtifact(BUNDLE, b"1"),
                AttachedArtifact(BUNDLE, b"2"),
            ]
        }
    )


async def test_what_is_attached_comes_in_order_and_only_of_the_type_asked_for(
    attachments: ImageAttachments,
) -> None:
    found = await attachments.attached(URI, DIGEST, artifact_type="application/vnd.dev.sigstore.bundle.")
    assert [each.content for each in found] == [b"1", b"2"]
    assert {each.artifact_type for each in found} == {BUNDLE}


async def test_nothing_attached_is_no_error(attachments: ImageAttachments) -> None:
    assert not await attachments.attached(URI, f"sha256:{'1' * 64}", artifact_type="application/")


async def test_the_in_memory_attachments_can_be_taken_offline() -> None:
    with pytest.raises(ArtifactUnavailable, match="offline"):
        await InMemoryAttachments(offline=True).attached(URI, DIGEST, artifact_type="")
