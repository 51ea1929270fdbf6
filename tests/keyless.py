"""A Sigstore of the tests' own: authority, certificate log and transparency log, and keyless signatures.

Everything a public Sigstore would do for one signature is done here, on one machine and with fresh keys:
a certificate for an identity with a signed timestamp of a certificate log in it, a signature, and an entry
of a transparency log with its inclusion proof, checkpoint and promise.
"""

import base64
import hashlib
import json
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
_SCTS = ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_ISSUER_DER = ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
_ISSUER = ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
Key = ec.EllipticCurvePrivateKey


def new_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def spki(key: Key) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def key_id(key: Key) -> bytes:
    return hashlib.sha256(spki(key)).digest()


def sign(key: Key, data: bytes) -> bytes:
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


def der(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = bytes([size]) if size < 0x80 else bytes([0x82]) + struct.pack(">H", size)
    return bytes([tag]) + length + content


@dataclass
class Keyless:
    """One Sigstore. `signed_at` is when it does everything."""

    signed_at: datetime = NOW
    authority_key: Key = field(default_factory=new_key)
    certificate_log_key: Key = field(default_factory=new_key)
    log_key: Key = field(default_factory=new_key)
    authority: x509.Certificate = field(init=False)

    def __post_init__(self) -> None:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the tests' authority")])
        self.authority = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.authority_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - timedelta(days=3650))
            .not_valid_after(NOW + timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self.authority_key.public_key()), critical=False
            )
            .sign(self.authority_key, hashes.SHA256())
        )

    def trusted_root(self) -> dict[str, Any]:
        """The trusted_root.json of this Sigstore."""
        valid = {"start": _rfc3339(NOW - timedelta(days=3650))}

        def log(key: Key) -> dict[str, Any]:
            return {
                "baseUrl": "https://log.invalid",
                "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": b64(spki(key)),
                    "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "validFor": valid,
                },
                "logId": {"keyId": b64(key_id(key))},
            }

        return {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log(self.log_key)],
            "ctlogs": [log(self.certificate_log_key)],
            "certificateAuthorities": [
                {
                    "subject": {"organization": "tests", "commonName": "the tests' authority"},
                    "uri": "https://authority.invalid",
                    "certChain": {"certificates": [{"rawBytes": b64(_der(self.authority))}]},
                    "validFor": valid,
                }
            ],
            "timestampAuthorities": [],
        }

    def write_trusted_root(self, path: Path) -> Path:
        path.write_text(json.dumps(self.trusted_root()))
        return path

    def certificate(self, key: Key, identity: str, issuer: str, *, logged: bool = True) -> x509.Certificate:
        """A certificate of ten minutes for `identity`, with the certificate log's timestamp if `logged`."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.authority.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.signed_at - timedelta(minutes=1))
            .not_valid_after(self.signed_at + timedelta(minutes=9))
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.authority_key.public_key()),
                critical=False,
            )
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)]), critical=True
            )
            .add_extension(x509.UnrecognizedExtension(_ISSUER, issuer.encode()), critical=False)
            .add_extension(
                x509.UnrecognizedExtension(_ISSUER_DER, der(0x0C, issuer.encode())), critical=False
            )
        )
        if not logged:
            return builder.sign(self.authority_key, hashes.SHA256())
        # The log signs the certificate as it is without the log's own extension.
        bare = builder.sign(self.authority_key, hashes.SHA256()).tbs_certificate_bytes
        time_ms = int(self.signed_at.timestamp() * 1000)
        entry = key_id(self.authority_key) + len(bare).to_bytes(3, "big") + bare
        signed = struct.pack("!BBQH", 0, 0, time_ms, 1) + entry + struct.pack("!H", 0)
        signature = sign(self.certificate_log_key, signed)
        stamp = struct.pack("!B", 0) + key_id(self.certificate_log_key) + struct.pack("!QH", time_ms, 0)
        stamp += struct.pack("!BBH", 4, 3, len(signature)) + signature
        stamps = struct.pack("!HH", len(stamp) + 2, len(stamp)) + stamp
        extension = x509.UnrecognizedExtension(_SCTS, der(0x04, stamps))
        return builder.add_extension(extension, critical=False).sign(self.authority_key, hashes.SHA256())

    def bundle(
        self,
        digest: str,
        *,
        identity: str = "https://github.com/example/repo/.github/workflows/build.yaml@refs/heads/main",
        issuer: str = "https://token.actions.githubusercontent.com",
        envelope: bool = True,
        logged: bool = True,
    ) -> dict[str, Any]:
        """A signature of the image manifest `digest`, in an `envelope` as cosign has it, or bare."""
        key = new_key()
        certificate = self.certificate(key, identity, issuer, logged=logged)
        if envelope:
            content, body = _envelope(key, certificate, digest)
        else:
            content, body = _message(key, certificate, digest)
        return {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "certificate": {"rawBytes": b64(_der(certificate))},
                "tlogEntries": [self._entry(body)],
                "timestampVerificationData": None,
            },
            **content,
        }

    def _entry(self, body: dict[str, Any]) -> dict[str, Any]:
        canonical = _canonical(body)
        log_id, time_s = key_id(self.log_key), int(self.signed_at.timestamp())
        promise = {"body": b64(canonical), "integratedTime": time_s, "logID": log_id.hex(), "logIndex": 7}
        root = hashlib.sha256(b"\0" + canonical).digest()  # the log is a tree with this one leaf
        note = f"log.invalid\n1\n{b64(root)}\n"
        seal = log_id[:4] + sign(self.log_key, note.encode())
        return {
            "logIndex": "7",
            "logId": {"keyId": b64(log_id)},
            "kindVersion": {"kind": body["kind"], "version": body["apiVersion"]},
            "integratedTime": str(time_s),
            "inclusionPromise": {"signedEntryTimestamp": b64(sign(self.log_key, _canonical(promise)))},
            "inclusionProof": {
                "logIndex": "0",
                "rootHash": b64(root),
                "treeSize": "1",
                "hashes": [],
                "checkpoint": {"envelope": f"{note}\n— log.invalid {b64(seal)}\n"},
            },
            "canonicalizedBody": b64(canonical),
        }


def _envelope(key: Key, certificate: x509.Certificate, digest: str) -> tuple[dict[str, Any], dict[str, Any]]:
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "", "digest": {"sha256": digest.removeprefix("sha256:")}}],
        "predicateType": "https://sigstore.dev/cosign/sign/v1",
        "predicate": {},
    }
    payload, kind = json.dumps(statement).encode(), "application/vnd.in-toto+json"
    signature = sign(key, b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload))
    content = {
        "dsseEnvelope": {
            "payload": b64(payload),
            "payloadType": kind,
            "signatures": [{"sig": b64(signature), "keyid": ""}],
        }
    }
    body = {
        "apiVersion": "0.0.1",
        "kind": "dsse",
        "spec": {
            "envelopeHash": {"algorithm": "sha256", "value": "0" * 64},
            "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()},
            "signatures": [{"signature": b64(signature), "verifier": b64(_pem(certificate))}],
        },
    }
    return content, body


def _message(key: Key, certificate: x509.Certificate, digest: str) -> tuple[dict[str, Any], dict[str, Any]]:
    from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

    value = bytes.fromhex(digest.removeprefix("sha256:"))
    signature = key.sign(value, ec.ECDSA(Prehashed(hashes.SHA256())))
    content = {
        "messageSignature": {
            "messageDigest": {"algorithm": "SHA2_256", "digest": b64(value)},
            "signature": b64(signature),
        }
    }
    body = {
        "apiVersion": "0.0.1",
        "kind": "hashedrekord",
        "spec": {
            "data": {"hash": {"algorithm": "sha256", "value": value.hex()}},
            "signature": {"content": b64(signature), "publicKey": {"content": b64(_pem(certificate))}},
        },
    }
    return content, body


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _rfc3339(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
