"""Sigstore bundles, verified by the `sigstore` library (the extra `localai-worker[verify]`)."""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from anyio import Lock, fail_after, to_thread

from ...domain.errors import SignatureInvalid, VerifierUnavailable
from ...domain.ports.signatures import Signer

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from sigstore.models import Bundle
    from sigstore.verify import Verifier

log = logging.getLogger(__name__)

# Where Fulcio writes the issuer of an identity: an OID of its own, as text and later as a DER string.
_ISSUER, _ISSUER_DER = "1.3.6.1.4.1.57264.1.1", "1.3.6.1.4.1.57264.1.8"
_DER_UTF8_STRING, _DER_SHORT_LENGTH = 0x0C, 0x80
_STATEMENT = "https://in-toto.io/Statement/v1"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_LARGEST_BUNDLE_BYTES = 4 << 20


@dataclass
class SigstoreBundles:
    """A `SignatureVerifier` with Sigstore's public trust root, or the one in `trusted_root`.

    The public one comes from its TUF repository with the first verification, within `root_s`, and is kept
    for the process; a failure to get it is not (G-W28).
    """

    trusted_root: Path | None = None
    root_s: float = 120.0
    _verifier: "Verifier | None" = field(default=None, init=False)
    _loading: Lock = field(default_factory=Lock, init=False)

    async def verify(self, bundle: bytes, digest: str) -> Signer:
        verifier = await self._trusting_verifier()
        return await to_thread.run_sync(_verify, verifier, bundle, digest)

    async def _trusting_verifier(self) -> "Verifier":
        async with self._loading:
            if self._verifier is None:
                try:
                    with fail_after(self.root_s):
                        self._verifier = await to_thread.run_sync(
                            _load_verifier, self.trusted_root, abandon_on_cancel=True
                        )
                except TimeoutError as error:
                    reason = f"Sigstore's trust root did not come within {self.root_s:g} s"
                    raise VerifierUnavailable(reason) from error
            return self._verifier


def _load_verifier(trusted_root: Path | None) -> "Verifier":
    try:
        from sigstore.errors import Error as SigstoreError
        from sigstore.models import ClientTrustConfig, TrustedRoot
        from sigstore.verify import Verifier
    except ImportError as error:
        raise VerifierUnavailable("install localai-worker[verify], the library is missing") from error
    try:
        if trusted_root is not None:
            root = TrustedRoot.from_file(str(trusted_root))
        else:
            root = ClientTrustConfig.production().trusted_root
        return Verifier(trusted_root=root)
    # Network, files and TUF metadata fail in as many ways as there are libraries below.
    except (SigstoreError, OSError, ValueError, RuntimeError) as error:
        where = trusted_root or "Sigstore's TUF repository"
        raise VerifierUnavailable(f"no trust root from {where}: {_one_line(error)}") from error


def _verify(verifier: "Verifier", content: bytes, digest: str) -> Signer:
    from sigstore.models import Bundle

    if len(content) > _LARGEST_BUNDLE_BYTES:
        raise SignatureInvalid(f"the bundle is larger than {_LARGEST_BUNDLE_BYTES} bytes")
    try:
        bundle = Bundle.from_json(content)
        _verify_bundle(verifier, bundle, digest)
        return _signer(bundle.signing_certificate)
    except SignatureInvalid:
        raise
    except Exception as error:
        raise SignatureInvalid(_one_line(error)) from error


class _Anybody:
    """A policy of the library's that lets everybody pass: who should have signed is decided elsewhere."""

    def verify(self, cert: "Certificate") -> None:
        """Never objects."""


def _verify_bundle(verifier: "Verifier", bundle: "Bundle", digest: str) -> None:
    from sigstore.hashes import Hashed
    from sigstore_models.common.v1 import HashAlgorithm

    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256":
        raise SignatureInvalid(f"only sha256 digests are signed, not {algorithm}")
    if "dsseEnvelope" not in json.loads(bundle.to_json()):
        hashed = Hashed(algorithm=HashAlgorithm.SHA2_256, digest=bytes.fromhex(value))
        verifier.verify_artifact(hashed, bundle, _Anybody())
        return
    payload_type, payload = verifier.verify_dsse(bundle, _Anybody())
    if payload_type != _PAYLOAD_TYPE:
        raise SignatureInvalid(f"a signed {payload_type}, want {_PAYLOAD_TYPE}")
    statement = json.loads(payload)
    if statement["_type"] != _STATEMENT:
        raise SignatureInvalid(f"a signed {statement['_type']}, want {_STATEMENT}")
    signed = [subject["digest"].get("sha256") for subject in statement["subject"]]
    if value not in signed:
        raise SignatureInvalid(f"it is of sha256:{' and '.join(map(str, signed))}, not of {digest}")


def _signer(certificate: "Certificate") -> Signer:
    from cryptography import x509

    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return Signer(
        issuer=_issuer(certificate),
        identities=(
            *names.get_values_for_type(x509.UniformResourceIdentifier),
            *names.get_values_for_type(x509.RFC822Name),
        ),
        issued_at=certificate.not_valid_before_utc,
    )


def _issuer(certificate: "Certificate") -> str:
    found = {each.oid.dotted_string: each.value for each in certificate.extensions}
    if der := getattr(found.get(_ISSUER_DER), "value", b""):
        if len(der) < 2 or der[0] != _DER_UTF8_STRING:
            raise SignatureInvalid("the certificate's issuer is no text")
        skip = 2 if der[1] < _DER_SHORT_LENGTH else 2 + (der[1] & ~_DER_SHORT_LENGTH)
        return bytes(der[skip:]).decode()
    return bytes(getattr(found.get(_ISSUER), "value", b"")).decode()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
