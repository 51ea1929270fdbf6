"""Every `SignatureVerifier` keeps these promises: the one in memory and the one of the sigstore library."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from localai_worker.adapters.memory.signatures import InMemorySignatures
from localai_worker.adapters.signatures.sigstore_bundles import SigstoreBundles
from localai_worker.domain.errors import SignatureInvalid, VerifierUnavailable
from localai_worker.domain.ports.signatures import SignatureVerifier, Signer
from tests.keyless import NOW, Keyless

DIGEST = "sha256:" + "ab" * 32
OTHER = "sha256:" + "cd" * 32
SIGNER = Signer(
    "https://issuer.example", ("https://signer.example/build@refs/heads/main",), NOW - timedelta(minutes=1)
)


@dataclass
class Stage:
    """A verifier, a way to sign a digest as SIGNER, and one that cannot verify anything."""

    verifier: SignatureVerifier
    sign: Callable[[str], bytes]
    helpless: SignatureVerifier


@pytest.fixture(params=["memory", "sigstore envelope", "sigstore message"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    if request.param == "memory":
        return Stage(
            InMemorySignatures(),
            lambda digest: InMemorySignatures.bundle(digest, SIGNER),
            InMemorySignatures(offline=True),
        )
    sigstore = Keyless()

    def sign(digest: str) -> bytes:
        envelope = request.param == "sigstore envelope"
        bundle = sigstore.bundle(
            digest, identity=SIGNER.identities[0], issuer=SIGNER.issuer, envelope=envelope
        )
        return json.dumps(bundle).encode()

    root = sigstore.write_trusted_root(tmp_path / "trusted_root.json")
    return Stage(SigstoreBundles(root), sign, SigstoreBundles(tmp_path / "missing.json"))


async def test_a_good_signature_tells_who_signed(stage: Stage) -> None:
    assert await stage.verifier.verify(stage.sign(DIGEST), DIGEST) == SIGNER


async def test_a_signature_of_something_else_does_not_hold(stage: Stage) -> None:
    with pytest.raises(SignatureInvalid):
        await stage.verifier.verify(stage.sign(OTHER), DIGEST)


@pytest.mark.parametrize("bundle", [b"", b"{}", b"[]", b"null", b"\xff", b"x" * (5 << 20)])
async def test_what_is_no_bundle_does_not_hold(stage: Stage, bundle: bytes) -> None:
    with pytest.raises(SignatureInvalid):
        await stage.verifier.verify(bundle, DIGEST)


async def test_a_verifier_that_cannot_work_says_so_and_no_more(stage: Stage) -> None:
    with pytest.raises(VerifierUnavailable, match="no signature can be verified"):
        await stage.helpless.verify(stage.sign(DIGEST), DIGEST)
