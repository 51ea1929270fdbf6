"""What a registry wants to see before it answers: basic logins, and bearer tokens that a login buys."""

import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlencode, urlsplit, urlunsplit

from ....domain.errors import ArtifactUnavailable
from ..web.client import Answer, WebClient, WebFailure, shown
from ..web.flight import Flight
from ..web.patience import Patience, require_lasting
from .credentials import Login

_PARAMETER = re.compile(r'([A-Za-z_]+)="((?:[^"\\]|\\.)*)"|([A-Za-z_]+)=([^",\s]+)')
_ANSWER_BYTES = 1 << 20
_SHORTEST_S = 60.0  # how long a token lasts that does not say; by the distribution specification
_LONGEST_S = 3600.0
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


@dataclass(frozen=True, slots=True)
class Entry:
    """Who wants to enter where: a registry's challenge for one of its repositories, and our login.

    `uri` and `remedy` (what may help where we are refused) are for messages.
    """

    challenge: Challenge
    origin: str
    repository: str
    login: Login
    uri: str
    remedy: str

    @property
    def who(self) -> str:
        """Whose request it is, for messages."""
        return "our login" if self.login else "an anonymous request"

    def refused(self, reason: str) -> ArtifactUnavailable:
        return ArtifactUnavailable(self.uri, f"{reason}; {self.remedy}")


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

    def obtain(self, entry: Entry, flight: Flight) -> str:
        """The `Authorization` that meets the challenge; kept for the next request.

        A login goes to a token server over plain http only where the registry itself is plain http.

        Raises:
            ArtifactUnavailable: the login is refused, or missing.
            WebFailure: the token server does not answer.
        """
        if entry.challenge.scheme == "basic":
            if not entry.login.user:
                raise entry.refused(f"registry {urlsplit(entry.origin).netloc} wants a login")
            value, lasts_s = entry.login.basic, _LONGEST_S
        else:
            value, lasts_s = self._buy(entry, flight)
        with self._lock:
            self._kept[entry.origin, entry.repository] = (value, self.now_s() + lasts_s)
        return value

    def _buy(self, entry: Entry, flight: Flight) -> tuple[str, float]:
        where = shown(entry.challenge.realm)
        realm = urlsplit(entry.challenge.realm)
        if realm.scheme not in {"http", "https"} or not realm.hostname:
            reason = f"the registry names no token server: realm={entry.challenge.realm!r}"
            raise ArtifactUnavailable(entry.uri, reason)
        if entry.login and realm.scheme == "http" and entry.origin.startswith("https:"):
            reason = f"the registry wants the login sent in clear to {where}; refused"
            raise ArtifactUnavailable(entry.uri, reason)

        def ask() -> Mapping[str, object]:
            with self._request(entry, realm, flight) as answer:
                require_lasting(answer, f"token server {where}")
                content = answer.read_all(_ANSWER_BYTES)
                if answer.status != 200:
                    raise entry.refused(f"token server {where} answers {answer.status} to {entry.who}")
            try:
                document = json.loads(content)
            except (ValueError, RecursionError) as error:
                raise WebFailure(f"token server {where} answers no JSON") from error
            return document if isinstance(document, dict) else {}

        answer = self.patience.persist(ask, flight)
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str) or not token or not token.isprintable():
            raise ArtifactUnavailable(entry.uri, f"token server {where} gives no token")
        lasts_s = answer.get("expires_in")
        lasts_s = min(lasts_s, _LONGEST_S) if isinstance(lasts_s, int | float) else _SHORTEST_S
        return f"Bearer {token}", max(lasts_s, _SHORTEST_S) - _EARLY_S

    def _request(self, entry: Entry, realm: SplitResult, flight: Flight) -> AbstractContextManager[Answer]:
        challenge, login = entry.challenge, entry.login
        scope = challenge.scope or f"repository:{entry.repository}:pull"
        fields = {"service": challenge.service, "scope": scope}
        if login.identity_token:
            body = {**fields, "grant_type": "refresh_token", "refresh_token": login.identity_token}
            return self.web.get(
                challenge.realm,
                flight,
                method="POST",
                body=urlencode({**body, "client_id": "localai-worker"}).encode(),
                headers={"Content-Type": "application/x-www-form-urlencoded"},
            )
        query = "&".join(part for part in (realm.query, urlencode(fields)) if part)
        url = urlunsplit((realm.scheme, realm.netloc, realm.path, query, ""))
        return self.web.get(url, flight, authorization=login.basic if login.user else "")
