"""What a registry wants to see before it answers: basic logins, and bearer tokens that a login buys."""

import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit, urlunsplit

from ....domain.errors import ArtifactUnavailable
from ..web.client import WebClient, WebFailure, shown
from ..web.flight import Flight
from ..web.patience import Patience, require_lasting
from .credentials import Login

_PARAMETER = re.compile(r'([A-Za-z_]+)="((?:[^"\\]|\\.)*)"|([A-Za-z_]+)=([^",\s]+)')
_ANSWER_BYTES = 1 << 20
_SHORTEST_S = 60.0  # how long a token lasts that does not say; by the distribution specification
_EARLY_S = 10.0  # renewed before it ends, a request takes its time


@dataclass(frozen=True, slots=True)
class Challenge:
    """What `WWW-Authenticate` asks for: `basic` or `bearer`, and where tokens come from."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""

    @classmethod
    def parse(cls, header: str) -> "Challenge | None":
        """The first challenge of a kind we can meet; None when there is none."""
        for scheme in ("Bearer", "Basic"):
            found = re.search(rf"(?i)(?:^|,\s*)\b{scheme}\b\s*(.*)", header)
            if found:
                parts = {
                    (match[1] or match[3]).lower(): match[2] or match[4] or ""
                    for match in _PARAMETER.finditer(found[1])
                }
                return cls(
                    scheme.lower(), parts.get("realm", ""), parts.get("service", ""), parts.get("scope", "")
                )
        return None


@dataclass
class Tokens:
    """Buys tokens and keeps them as long as they last, by registry and repository."""

    web: WebClient
    patience: Patience
    now_s: Callable[[], float] = time.monotonic
    _kept: dict[tuple[str, str], tuple[str, float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def kept(self, origin: str, repository: str) -> str:
        """The `Authorization` that worked last time and still lasts; "" for none."""
        with self._lock:
            value, ends_s = self._kept.get((origin, repository), ("", 0.0))
            return value if self.now_s() < ends_s else ""

    def forget(self, origin: str, repository: str) -> None:
        """It did not work any more."""
        with self._lock:
            self._kept.pop((origin, repository), None)

    def obtain(
        self,
        challenge: Challenge,
        origin: str,
        repository: str,
        login: Login,
        flight: Flight,
        *,
        uri: str,
        remedy: str,
    ) -> str:
        """The `Authorization` that meets `challenge`; kept for the next request. `remedy` ends refusals.

        A login goes to a token server over plain http only where the registry itself is plain http.

        Raises:
            ArtifactUnavailable: the login is refused, or missing.
            WebFailure: the token server does not answer.
        """
        if challenge.scheme == "basic":
            if not login.user:
                raise ArtifactUnavailable(uri, f"registry {urlsplit(origin).netloc} wants a login; {remedy}")
            value, lasts_s = login.basic, 3600.0
        else:
            value, lasts_s = self._buy(challenge, origin, repository, login, flight, uri, remedy)
        with self._lock:
            self._kept[origin, repository] = (value, self.now_s() + lasts_s)
        return value

    def _buy(
        self,
        challenge: Challenge,
        origin: str,
        repository: str,
        login: Login,
        flight: Flight,
        uri: str,
        remedy: str,
    ) -> tuple[str, float]:
        realm = urlsplit(challenge.realm)
        if realm.scheme not in {"http", "https"} or not realm.hostname:
            raise ArtifactUnavailable(uri, f"the registry names no token server: realm={challenge.realm!r}")
        if login and realm.scheme == "http" and origin.startswith("https:"):
            reason = f"the registry wants the login sent in clear to {shown(challenge.realm)}; refused"
            raise ArtifactUnavailable(uri, reason)
        fields = {"service": challenge.service, "scope": challenge.scope or f"repository:{repository}:pull"}

        def ask() -> Mapping[str, object]:
            if login.identity_token:
                body = {**fields, "grant_type": "refresh_token", "refresh_token": login.identity_token}
                request = self.web.get(
                    challenge.realm,
                    flight,
                    method="POST",
                    body=urlencode({**body, "client_id": "localai-worker"}).encode(),
                    headers={"Content-Type": "application/x-www-form-urlencoded"},
                )
            else:
                query = "&".join(part for part in (realm.query, urlencode(fields)) if part)
                url = urlunsplit((realm.scheme, realm.netloc, realm.path, query, ""))
                request = self.web.get(url, flight, authorization=login.basic if login.user else "")
            with request as answer:
                where = shown(challenge.realm)
                require_lasting(answer, f"token server {where}")
                content = answer.read_all(_ANSWER_BYTES)
                if answer.status != 200:
                    asked = "our login" if login else "an anonymous request"
                    reason = f"token server {where} answers {answer.status} to {asked}; {remedy}"
                    raise ArtifactUnavailable(uri, reason)
            try:
                document = json.loads(content)
            except (ValueError, RecursionError) as error:
                raise WebFailure(f"token server {where} answers no JSON") from error
            return document if isinstance(document, dict) else {}

        answer = self.patience.persist(ask, flight)
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str) or not token or not token.isprintable():
            raise ArtifactUnavailable(uri, f"token server {shown(challenge.realm)} gives no token")
        lasts_s = answer.get("expires_in")
        lasts_s = float(lasts_s) if isinstance(lasts_s, int | float) else _SHORTEST_S
        return f"Bearer {token}", max(lasts_s, _SHORTEST_S) - _EARLY_S
