"""NATS users as a newer frontend mints them, and what its NATS server must be told for that.

Sources: LocalAI pkg/natsauth, NATS' JWT claims of version 2.
"""

import base64
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...domain.bus_credentials import BusCredentials
from ...domain.node import NodeId

WORKER_LIFETIME_S = 24 * 3600.0  # LOCALAI_NATS_WORKER_JWT_TTL's default

_SEED_BYTES = 32


def _new_pair(prefix: str) -> Any:
    """A fresh Ed25519 pair of nkeys (which has no types); `prefix` names its kind in nkeys' own words."""
    import nkeys

    seed = nkeys.encode_seed(os.urandom(_SEED_BYTES), getattr(nkeys, f"PREFIX_BYTE_{prefix}"))
    return nkeys.from_seed(bytearray(seed))


@dataclass
class NatsUsers:
    """An operator with one account, as an installation in NATS' operator mode has them.

    `server_config` makes a nats-server accept the users that `mint` makes. `now_s` is the time of the
    claims, in seconds since 1970.
    """

    now_s: Callable[[], float] = time.time
    _operator: Any = field(default_factory=lambda: _new_pair("OPERATOR"))
    _account: Any = field(default_factory=lambda: _new_pair("ACCOUNT"))

    @property
    def server_config(self) -> str:
        """The server's settings, in its own language."""
        operator = self._sign(self._operator, "operator", self._operator, {"type": "operator"})
        limits = {"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "conn": -1, "leaf": -1}
        claims = {"type": "account", "limits": limits | {"wildcards": True}}
        account = self._sign(self._operator, "account", self._account, claims)
        name = self._account.public_key.decode()
        return f"operator: {operator}\nresolver: MEMORY\nresolver_preload: {{ {name}: {account} }}\n"

    def mint(
        self,
        name: str,
        *,
        may_listen: Sequence[str] = (),
        may_publish: Sequence[str] = (),
        lifetime_s: float | None = None,
    ) -> BusCredentials:
        """A new user of that name; without subjects it may do anything, without a lifetime for ever."""
        user = _new_pair("USER")
        claims: dict[str, object] = {"type": "user", "subs": -1, "data": -1, "payload": -1}
        if may_listen:
            claims["sub"] = {"allow": list(may_listen)}
        if may_publish:
            claims["pub"] = {"allow": list(may_publish)}
        jwt = self._sign(self._account, name, user, claims, lifetime_s)
        return BusCredentials.parse(jwt, user.seed.decode())

    def mint_worker(self, node_id: NodeId, lifetime_s: float = WORKER_LIFETIME_S) -> tuple[str, str]:
        """JWT and seed for the worker of a node, with the permissions that a frontend gives."""
        credentials = self.mint(
            f"localai-backend-{node_id}",
            may_listen=[f"nodes.{node_id}.>", "_INBOX.>"],
            may_publish=[
                f"nodes.{node_id}.backend.install.*.progress",
                f"nodes.{node_id}.files.>",
                "_INBOX.>",
            ],
            lifetime_s=lifetime_s,
        )
        return credentials.jwt, credentials.seed

    def _sign(
        self,
        issuer: Any,
        name: str,
        subject: Any,
        nats: Mapping[str, object],
        lifetime_s: float | None = None,
    ) -> str:
        issued_s = int(self.now_s())
        claims: dict[str, object] = {
            "iat": issued_s,
            "iss": issuer.public_key.decode(),
            "name": name,
            "sub": subject.public_key.decode(),
            "nats": {**nats, "version": 2},
        }
        if lifetime_s is not None:
            claims["exp"] = round(issued_s + lifetime_s)
        claims["jti"] = hashlib.sha256(json.dumps(claims).encode()).hexdigest()
        header = {"typ": "JWT", "alg": "ed25519-nkey"}
        text = f"{_part(json.dumps(header).encode())}.{_part(json.dumps(claims).encode())}"
        return f"{text}.{_part(issuer.sign(text.encode()))}"


def _part(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
