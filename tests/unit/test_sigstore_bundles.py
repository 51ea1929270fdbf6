"""Keyless signatures with a Sigstore of the tests' own: whatever is not as it should be does not hold."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localai_worker.adapters.signatures.sigstore_bundles import SigstoreBundles
from localai_worker.domain.errors import SignatureInvalid, VerifierUnavailable
from tests.keyless import NOW, Keyless, b64

DIGEST = "sha256:" + "ab" * 32


@pytest.fixture(scope="module")
def sigstore() -> Keyless:
    return Keyless()


@pytest.fixture(scope="module")
def verifier(sigstore: Keyless, tmp_path_factory: pytest.TempPathFactory) -> SigstoreBundles:
    return SigstoreBundles(sigstore.write_trusted_root(tmp_path_factory.mktemp("root") / "trusted_root.json"))


async def refusal(verifier: SigstoreBundles, bundle: Any, digest: str = DIGEST) -> str:
    with pytest.raises(SignatureInvalid) as caught:
        await verifier.verify(json.dumps(bundle).encode(), digest)
    return caught.value.reason


async def test_a_certificate_that_no_certificate_log_has_seen(
    verifier: SigstoreBundles, sigstore: Keyless
) -> None:
    """G-2.7.5."""
    assert "signed certificate timestamp" in await refusal(verifier, sigstore.bundle(DIGEST, logged=False))


async def test_a_signature_that_another_sigstore_vouches_for(verifier: SigstoreBundles) -> None:
    """G-2.7.5."""
    assert "chain" in await refusal(verifier, Keyless().bundle(DIGEST))


@pytest.mark.parametrize("part", ["certificate_log_key", "log_key"])
async def test_logs_that_nobody_trusts(verifier: SigstoreBundles, sigstore: Keyless, part: str) -> None:
    """G-2.7.5."""
    impostor = copy.copy(sigstore)
    setattr(impostor, part, Keyless().log_key)
    assert await refusal(verifier, impostor.bundle(DIGEST))


async def test_a_signature_of_no_log(verifier: SigstoreBundles, sigstore: Keyless) -> None:
    """G-2.7.5."""
    bundle = sigstore.bundle(DIGEST)
    bundle["verificationMaterial"]["tlogEntries"] = []
    assert "log entry" in await refusal(verifier, bundle)


async def test_a_signature_made_when_the_certificate_was_over(
    verifier: SigstoreBundles, sigstore: Keyless
) -> None:
    """G-2.7.5."""
    late = copy.copy(sigstore)
    bundle = late.bundle(DIGEST)
    late.signed_at = NOW + timedelta(hours=1)
    later = late.bundle(DIGEST)
    bundle["verificationMaterial"]["tlogEntries"] = later["verificationMaterial"]["tlogEntries"]
    assert await refusal(verifier, bundle)


def swap_entry(bundle: dict[str, Any], other: dict[str, Any]) -> None:
    bundle["verificationMaterial"]["tlogEntries"] = other["verificationMaterial"]["tlogEntries"]


def swap_certificate(bundle: dict[str, Any], other: dict[str, Any]) -> None:
    bundle["verificationMaterial"]["certificate"] = other["verificationMaterial"]["certificate"]


def swap_content(bundle: dict[str, Any], other: dict[str, Any]) -> None:
    key = "dsseEnvelope" if "dsseEnvelope" in bundle else "messageSignature"
    bundle[key] = other[key]


@pytest.mark.parametrize("envelope", [True, False])
@pytest.mark.parametrize("swap", [swap_entry, swap_certificate, swap_content])
async def test_parts_of_two_good_signatures_make_none(
    verifier: SigstoreBundles,
    sigstore: Keyless,
    envelope: bool,
    swap: Callable[[dict[str, Any], dict[str, Any]], None],
) -> None:
    bundle, other = sigstore.bundle(DIGEST, envelope=envelope), sigstore.bundle(DIGEST, envelope=envelope)
    swap(bundle, other)
    assert await refusal(verifier, bundle)


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ({"_type": "https://in-toto.io/Statement/v0.1"}, ""),
        ({"subject": []}, ""),
        ([], ""),
        ("no json", ""),
    ],
)
async def test_an_envelope_with_another_statement(
    verifier: SigstoreBundles, sigstore: Keyless, statement: object, why: str
) -> None:
    bundle = sigstore.bundle(DIGEST)
    bundle["dsseEnvelope"]["payload"] = b64(json.dumps(statement).encode())
    assert why in await refusal(verifier, bundle)


@pytest.mark.parametrize("digest", ["sha512:" + "ab" * 64, "sha256:zz", "", "sha256:"])
async def test_a_digest_that_nobody_signs(verifier: SigstoreBundles, sigstore: Keyless, digest: str) -> None:
    for envelope in (True, False):
        assert await refusal(verifier, sigstore.bundle(DIGEST, envelope=envelope), digest)


def paths(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    return [prefix, *(path for key, child in children for path in paths(child, (*prefix, key)))]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_a_bundle_with_any_part_replaced_is_foreseen(
    verifier: SigstoreBundles, sigstore: Keyless, data: st.DataObject
) -> None:
    """G-2.7.4: what strangers put into a registry never ends in anything but a refusal."""
    bundle = sigstore.bundle(DIGEST, envelope=data.draw(st.booleans()))
    path = data.draw(st.sampled_from(paths(bundle)[1:]))
    parent = bundle
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = data.draw(st.none() | st.integers() | st.text(max_size=8) | st.just([]) | st.just({}))
    with suppress(SignatureInvalid):
        await verifier.verify(json.dumps(bundle).encode(), DIGEST)


async def test_a_trust_root_that_is_none_is_told_with_its_path_and_asked_for_again(
    sigstore: Keyless, tmp_path: Path
) -> None:
    """G-W28: a trust root that could not be had is not remembered as missing."""
    path = tmp_path / "trusted_root.json"
    verifier = SigstoreBundles(path)
    bundle = json.dumps(sigstore.bundle(DIGEST)).encode()
    for broken in (None, "", "{}", "[]"):
        if broken is not None:
            path.write_text(broken)
        with pytest.raises(VerifierUnavailable, match=r"no trust root from .*trusted_root\.json"):
            await verifier.verify(bundle, DIGEST)
    sigstore.write_trusted_root(path)
    assert (await verifier.verify(bundle, DIGEST)).issuer == "https://token.actions.githubusercontent.com"


async def test_without_the_library_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "sigstore.errors", None)
    with pytest.raises(VerifierUnavailable, match=r"install localai-worker\[verify\]"):
        await SigstoreBundles(tmp_path / "x").verify(b"{}", DIGEST)


def test_the_library_is_loaded_only_when_something_is_verified() -> None:
    code = "import sys, localai_worker.adapters.signatures.sigstore_bundles as s; s.SigstoreBundles()\n"
    code += "sys.exit('sigstore' in sys.modules or 'cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
