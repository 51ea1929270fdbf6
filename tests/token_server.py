"""A token server as registries send clients to: it sells access by login, by identity token, or to anybody.

Tokens are what docker-registry verifies with `auth: token`: JWTs signed with a key whose certificate it has.
Source: the distribution project's docs/spec/auth (token.md, jwt.md, oauth.md).
"""

import base64
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

SERVICE, ISSUER = "the tests' registry", "the tests' token server"


@dataclass(frozen=True)
class Purchase:
    """One request for a token: what was asked for, and the `Authorization` it came with."""

    method: str
    fields: Mapping[str, str]
    authorization: str


@dataclass
class TokenServer:
    """Sells tokens on `port`; `sells_to_anybody` is for pulling only."""

    user: str
    password: str
    identity_token: str
    sells_to_anybody: bool = False
    port: int = 0
    purchases: list[Purchase] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.change_key()

    @property
    def realm(self) -> str:
        return f"http://127.0.0.1:{self.port}/token"

    def change_key(self) -> None:
        """Sign with another key from now on: who has the new certificate refuses what was sold before."""
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)])
        now = datetime.now(UTC)
        self._certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def write_certificate(self, path: Path) -> None:
        path.write_bytes(self._certificate.public_bytes(Encoding.PEM))

    def token(self, access: Sequence[Mapping[str, Any]], *, subject: str = "") -> str:
        """A token for `access`, good for five minutes."""
        now_s = int(time.time())
        chain = [base64.b64encode(self._certificate.public_bytes(Encoding.DER)).decode()]
        claims = {
            "iss": ISSUER,
            "sub": subject,
            "aud": SERVICE,
            "exp": now_s + 300,
            "nbf": now_s - 60,
            "iat": now_s,
            "jti": f"{len(self.purchases)}",
            "access": access,
        }
        signed = f"{_part({'typ': 'JWT', 'alg': 'ES256', 'x5c': chain})}.{_part(claims)}"
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def sell(self, purchase: Purchase) -> tuple[int, dict[str, Any]]:
        """Status and answer."""
        self.purchases.append(purchase)
        basic = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        fields = purchase.fields
        if purchase.method == "POST":
            is_known = fields.get("refresh_token") == self.identity_token
        else:
            is_known = purchase.authorization == f"Basic {basic}"
        if fields.get("service") != SERVICE:
            return 400, {"details": "another registry's"}
        if not is_known and (purchase.authorization or purchase.method == "POST"):
            return 401, {"details": "incorrect username or password"}
        kind, _, rest = fields.get("scope", "").partition(":")
        name, _, actions = rest.rpartition(":")
        granted = [
            each for each in actions.split(",") if is_known or (self.sells_to_anybody and each == "pull")
        ]
        token = self.token([{"type": kind, "name": name, "actions": granted}] if granted else [])
        return 200, {"access_token" if purchase.method == "POST" else "token": token, "expires_in": 300}


@contextmanager
def token_server(user: str, password: str, identity_token: str, **options: Any) -> Iterator[TokenServer]:
    """Sells for the block."""
    shop = TokenServer(user, password, identity_token, **options)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            self._answer(urlsplit(self.path).query)

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers["Content-Length"])).decode())

        def _answer(self, text: str) -> None:
            fields = {name: values[0] for name, values in parse_qs(text).items()}
            status, answer = shop.sell(Purchase(self.command, fields, self.headers.get("Authorization", "")))
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", shop.port), Handler)
    server.daemon_threads = True
    shop.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield shop
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def _part(value: object) -> str:
    return _encoded(json.dumps(value).encode())


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
