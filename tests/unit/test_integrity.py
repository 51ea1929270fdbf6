"""What may be installed: policies, hashes, and the strict switch."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.adapters.memory.artifacts import InMemoryArtifacts, InMemoryAttachments
from localai_worker.adapters.memory.clock import ManualClock
from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.adapters.memory.galleries import InMemoryGalleries
from localai_worker.adapters.memory.signatures import InMemorySignatures
from localai_worker.domain.errors import WorkerError
from localai_worker.domain.galleries import Gallery
from localai_worker.domain.gallery_index import GalleryIndexes
from localai_worker.domain.install import InstallBackends
from localai_worker.domain.installed import InstalledBackends
from localai_worker.domain.integrity import Integrity, Payload
from localai_worker.domain.ports.artifacts import OLD_SIGNATURE, AttachedArtifact
from localai_worker.domain.ports.signatures import Signer
from localai_worker.domain.read_galleries import ReadGalleries
from localai_worker.domain.signature_policy import InvalidPolicy, SignaturePolicy

IMAGE = "quay.io/example/b:latest-cpu-tool"
MIRROR = "ghcr.io/example/b:latest-cpu-tool"
ARCHIVE = "https://example.invalid/tool.tar.gz"
ISSUER = "https://token.actions.githubusercontent.com"
IDENTITY = "https://github.com/example/repo/.github/workflows/build.yaml@refs/heads/main"
SIGNED_AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
SIGNER = Signer(ISSUER, (IDENTITY,), SIGNED_AT)
POLICY = {"issuer": ISSUER, "identity_regex": "^https://github\\.com/example/repo/"}
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
TREE = {"run.sh": b"#!/bin/sh\n"}


class Node:
    """A node with one gallery and a registry in memory."""

    def __init__(self, verification: Mapping[str, object] | None, *, required: bool = False) -> None:
        self.filesystem = InMemoryFileSystem()
        self.artifacts = InMemoryArtifacts(self.filesystem)
        self.attachments = InMemoryAttachments()
        self.galleries = InMemoryGalleries()
        self.gallery = Gallery("site", "file:///srv/backends/index.yaml", verification=verification)
        self.signatures = InMemorySignatures()
        self.integrity = Integrity(self.attachments, self.signatures, required)
        backends = Path("/srv/backends")
        reader = ReadGalleries(self.galleries, self.filesystem, backends)
        self.installer = InstallBackends(
            self.filesystem,
            InstalledBackends(self.filesystem, backends, Path("/system"), "default"),
            self.artifacts,
            GalleryIndexes(reader, "default"),
            self.integrity,
            ManualClock(),
        )

    def offer(self, *sources: str, sha256: str = "") -> None:
        entry = {"name": "tool", "uri": sources[0], "mirrors": sources[1:], "sha256": sha256}
        self.galleries.indexes[self.gallery.url] = [entry]
        for source in sources:
            self.artifacts.trees[source] = TREE

    async def digest(self, uri: str = IMAGE) -> str:
        return (await self.artifacts.describe(uri)).digest

    async def sign(
        self, uri: str = IMAGE, signer: Signer = SIGNER, digest: str = "", kind: str = BUNDLE
    ) -> None:
        of = await self.digest(uri)
        attached = AttachedArtifact(kind, InMemorySignatures.bundle(digest or of, signer))
        self.attachments.stored.setdefault((uri, of), []).append(attached)

    async def install(self, uri: str = "", name: str = "") -> None:
        backend = "" if uri else "tool"
        await self.installer.ensure(backend=backend, galleries=[self.gallery], uri=uri, name=name)

    async def refusal(self, uri: str = "", name: str = "") -> str:
        with pytest.raises(WorkerError) as caught:
            await self.install(uri, name)
        assert self.filesystem.files(Path("/srv/backends")) == []
        return str(caught.value)


async def test_an_image_signed_as_its_gallery_wants_is_installed() -> None:
    """G-2.7.1, G-1.1.9."""
    node = Node(POLICY)
    node.offer(IMAGE)
    await node.sign()
    await node.install()
    assert Path("/srv/backends/tool/run.sh") in node.filesystem.files()


async def test_an_image_that_nobody_signed_is_refused_before_anything_is_written() -> None:
    """G-2.7.3, G-2.7.7."""
    node = Node(POLICY)
    node.offer(IMAGE)
    why = await node.refusal()
    assert f'image verification failed for "{IMAGE}"' in why
    assert f"there is none for {await node.digest()}" in why


async def test_an_image_with_only_an_old_signature_is_told_how_to_get_another() -> None:
    """G-2.7.4: upstream does not read these either."""
    node = Node(POLICY)
    node.offer(IMAGE)
    node.attachments.stored[IMAGE, await node.digest()] = [AttachedArtifact(OLD_SIGNATURE, b"{}")]
    why = await node.refusal()
    assert "there is none for" in why
    assert "--new-bundle-format" in why


@pytest.mark.parametrize(
    ("signer", "why"),
    [
        (Signer("https://evil.example", (IDENTITY,), SIGNED_AT), "an identity of 'https://evil.example'"),
        (
            Signer(ISSUER, ("https://github.com/evil/repo",), SIGNED_AT),
            "signed by 'https://github.com/evil/repo'",
        ),
        (Signer(ISSUER, (), SIGNED_AT), "which the gallery does not want"),
    ],
)
async def test_an_image_signed_by_somebody_else_is_refused(signer: Signer, why: str) -> None:
    node = Node(POLICY)
    node.offer(IMAGE)
    await node.sign(signer=signer)
    assert why in await node.refusal()


async def test_a_signature_of_another_image_is_refused() -> None:
    """G-2.7.3: the digest of the manifest that is unpacked must be signed."""
    node = Node(POLICY)
    node.offer(IMAGE)
    await node.sign(digest="sha256:" + "0" * 64)
    assert "it is of sha256:000" in await node.refusal()


async def test_a_good_signature_among_bad_ones_counts() -> None:
    """G-W28: upstream looks at the first bundle only."""
    node = Node(POLICY)
    node.offer(IMAGE)
    digest = await node.digest()
    node.attachments.stored[IMAGE, digest] = [AttachedArtifact(BUNDLE, b"rubbish")]
    await node.sign(signer=Signer(ISSUER, ("https://somebody.example",), SIGNED_AT))
    await node.sign()
    await node.install()


@pytest.mark.parametrize("kind", ["application/vnd.dev.cosign.simplesigning.v1+json", f"{BUNDLE}.old"])
async def test_other_things_attached_are_no_signatures(kind: str) -> None:
    """G-2.7.4."""
    node = Node(POLICY)
    node.offer(IMAGE)
    await node.sign(kind=kind)
    assert "there is none" in await node.refusal()


async def test_a_mirror_is_verified_too_and_may_stand_in() -> None:
    """G-2.7.7, G-2.3.11."""
    node = Node(POLICY)
    node.offer(IMAGE, MIRROR)
    assert f'image verification failed for "{IMAGE}"' in await node.refusal()
    await node.sign(MIRROR)
    await node.install()


async def test_without_a_policy_images_are_taken_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """G-2.7.1."""
    node = Node(None)
    node.offer(IMAGE)
    await node.install()
    assert [record.message for record in caplog.records if "not verified" in record.message] == [
        f"image is not verified: backend=tool source={IMAGE} digest={await node.digest()}"
    ]


async def test_with_integrity_required_a_gallery_needs_a_policy() -> None:
    """G-2.7.1, G-1.1.10."""
    node = Node(None, required=True)
    node.offer(IMAGE)
    assert (
        'strict integrity: gallery "site" has no verification policy for OCI backend "tool"'
        in await node.refusal()
    )
    node = Node(POLICY, required=True)
    node.offer(IMAGE)
    await node.sign()
    await node.install()


async def test_with_integrity_required_an_archive_needs_a_hash() -> None:
    """G-2.7.1, G-1.1.10, G-2.3.11."""
    node = Node(POLICY, required=True)
    node.artifacts.archives.add(ARCHIVE)
    node.offer(ARCHIVE)
    assert 'strict integrity: backend "tool" has no SHA256 (gallery "site")' in await node.refusal()
    node.offer(ARCHIVE, sha256="0" * 64)
    assert "should be sha256:000" in await node.refusal()
    node.offer(ARCHIVE, sha256=(await node.digest(ARCHIVE)).removeprefix("sha256:"))
    await node.install()


async def test_an_image_among_the_mirrors_of_an_archive_is_verified() -> None:
    """G-2.7.1: upstream looks at the first source only, and pulls such a mirror as it is."""
    node = Node(POLICY)
    node.artifacts.archives.add(ARCHIVE)
    node.artifacts.broken.add(ARCHIVE)
    node.offer(ARCHIVE, MIRROR)
    assert "is set broken" in await node.refusal()
    await node.sign(MIRROR)
    await node.install()


@pytest.mark.parametrize("uri", ["ocifile:///images/tool.tar", "ollama://tool:1"])
async def test_images_that_cannot_carry_a_signature_are_refused_where_one_is_wanted(uri: str) -> None:
    """G-2.7.1: upstream counts them as images and takes them unverified."""
    node = Node(POLICY)
    node.offer(uri)
    assert "image verification failed for" in await node.refusal()


async def test_with_integrity_required_images_named_by_a_request_are_refused() -> None:
    """G-2.7.1: they have no gallery, so nobody vouches for them."""
    node = Node(POLICY, required=True)
    node.artifacts.trees["oci://quay.io/x/y:1"] = TREE
    assert "a source without a gallery has no verification policy" in await node.refusal(
        uri="oci://quay.io/x/y:1", name="y"
    )
    node.artifacts.trees["ocifile:///images/y.tar"] = TREE
    assert "strict integrity" in await node.refusal(uri="ocifile:///images/y.tar")


async def test_directories_of_this_node_are_always_taken() -> None:
    """G-2.7.1."""
    node = Node(POLICY, required=True)
    node.filesystem.put(Path("/images/tree/run.sh"), b"#!/bin/sh\n")
    node.artifacts.trees["/images/tree"] = TREE
    node.artifacts.archives.add("/images/tree")
    await node.install(uri="/images/tree")


@pytest.mark.parametrize("state", ["registry", "verifier"])
async def test_what_cannot_be_verified_right_now_is_refused(state: str) -> None:
    node = Node(POLICY)
    node.offer(IMAGE)
    await node.sign()
    if state == "registry":
        node.attachments.offline = True
    else:
        node.signatures.offline = True
    assert "offline" in await node.refusal()


@pytest.mark.parametrize(
    ("verification", "why"),
    [
        ({}, "it names no issuer; give issuer or issuer_regex"),
        ({"issuer": ISSUER}, "it names no identity"),
        ({"identity": IDENTITY}, "it names no issuer"),
        ({"issuer_regex": "(", "identity": "x"}, "no regular expression"),
        ({"issuer_regex": "x" * 1001, "identity": "x"}, "longer than 1000"),
        ({"issuer": ["x"], "identity": "x"}, "not a text"),
        ({**POLICY, "not_before": "yesterday"}, "no time like"),
        ({**POLICY, "not_before": "2026-05-01T00:00:00"}, "no time like"),
        ({**POLICY, "not_before": "2026-05-01"}, "no time like"),
    ],
)
async def test_half_a_policy_installs_nothing(verification: dict[str, object], why: str) -> None:
    """G-2.7.2."""
    node = Node(verification)
    node.offer(IMAGE)
    assert why in await node.refusal()
    with pytest.raises(InvalidPolicy, match='the verification policy of gallery "site" is invalid'):
        node.integrity.admit(Payload("tool", (IMAGE,), gallery=node.gallery), IMAGE)


def objection(verification: Mapping[str, object], signer: Signer = SIGNER) -> str:
    return SignaturePolicy.from_gallery("site", verification).objection(signer)


def test_exact_names_and_patterns_must_both_hold() -> None:
    """G-2.7.2."""
    both = {**POLICY, "issuer_regex": "actions", "identity": IDENTITY}
    assert objection(both) == ""
    assert objection({**both, "issuer_regex": "gitlab"})
    assert objection({**both, "identity": "https://github.com/example/repo/other"})


def test_patterns_match_anywhere_and_anchors_hold() -> None:
    assert objection({"issuer_regex": "githubusercontent", "identity_regex": "build\\.yaml"}) == ""
    anchored = {"issuer": ISSUER, "identity_regex": "^https://github\\.com/example/repo$"}
    assert objection(anchored, Signer(ISSUER, ("https://github.com/example/repo\n",), SIGNED_AT))
    assert objection(anchored, Signer(ISSUER, ("https://github.com/example/repo",), SIGNED_AT)) == ""


@pytest.mark.parametrize(("days", "holds"), [(-1, True), (0, True), (1, False)])
def test_signatures_from_before_a_moment_count_no_more(days: int, holds: bool) -> None:
    """G-2.7.6: by the time the certificate was issued, minutes before the signature at most."""
    not_before = (SIGNED_AT + timedelta(days=days)).isoformat().replace("+00:00", "Z")
    assert (objection({**POLICY, "not_before": not_before}) == "") == holds


TEXTS: st.SearchStrategy[Sequence[str]] = st.lists(st.text(max_size=20), max_size=3)


@given(st.text(max_size=20), TEXTS)
def test_an_empty_name_never_satisfies_a_policy(issuer: str, identities: Sequence[str]) -> None:
    told = objection({"issuer": ISSUER, "identity": IDENTITY}, Signer(issuer, tuple(identities), SIGNED_AT))
    assert (told == "") == (issuer == ISSUER and IDENTITY in identities)
