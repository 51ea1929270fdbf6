"""The read side of the OCI distribution API: manifests, blobs and referrers."""

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from ....domain.errors import ArtifactInvalid, ArtifactMissing, ArtifactUnavailable
from ....domain.image_reference import ImageReference
from ..web.client import Answer, WebClient, WebFailure
from ..web.flight import Flight
from ..web.patience import Patience, require_lasting
from .credentials import DockerLogins
from .plain_hosts import may_be_plain
from .tokens import Challenge, Entry, Tokens

Result = TypeVar("Result")

DOCUMENT_BYTES = 4 << 20  # as registries limit manifests
_HUB_HOST = "registry-1.docker.io"
_MANIFESTS = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_SHOWN_REASON = 200
_REFUSAL_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class FetchedManifest:
    """A manifest or index: its bytes, as which type they were served, and their digest."""

    content: bytes
    media_type: str
    digest: str


@dataclass
class RegistryClient:
    """Asks registries; for threads. `uri`s are only for messages.

    Registries on this machine or a private IPv4 address may speak plain http: https is tried first.
    Source: go-containerregistry pkg/name, Registry.Scheme.
    """

    web: WebClient
    logins: DockerLogins
    patience: Patience = field(default_factory=Patience)
    _origins: dict[str, str] = field(default_factory=dict)  # by host, once found out
    _tokens: Tokens = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._tokens = Tokens(self.web, self.patience)

    def host_of(self, reference: ImageReference) -> str:
        """The host that is asked; Docker Hub's API has a name of its own."""
        return _HUB_HOST if reference.is_on_hub else reference.host

    def manifest(self, reference: ImageReference, flight: Flight, *, uri: str) -> FetchedManifest:
        """The manifest or index that `reference` names, its digest verified where one is known.

        Raises:
            ArtifactMissing: the registry says there is none.
            ArtifactUnavailable: it does not answer, or refuses.
            ArtifactInvalid: it answers with something else.
        """
        path = f"manifests/{reference.version}"

        def ask() -> FetchedManifest | None:
            headers = {"Accept": _MANIFESTS}
            with self._get(reference, path, flight, uri=uri, headers=headers) as answer:
                if answer.status == 404:
                    return None
                self._require_ok(answer, uri, f"manifest {reference.version}")
                content = answer.read_all(DOCUMENT_BYTES)
                media_type = answer.headers.get("content-type", "").partition(";")[0].strip()
                told = answer.headers.get("docker-content-digest", "")
            if len(content) > DOCUMENT_BYTES:
                raise ArtifactInvalid(uri, f"its manifest is larger than {DOCUMENT_BYTES} bytes")
            wanted = reference.digest or (told if re.fullmatch(r"sha(256|512):[0-9a-f]+", told) else "")
            digest = _digest_of(content, wanted)
            if wanted and digest != wanted:
                raise ArtifactInvalid(uri, f"the manifest is {digest}, should be {wanted}")
            return FetchedManifest(content, media_type, digest)

        found = self._persist(ask, flight, uri)
        if found is None:
            raise ArtifactMissing(uri, f"{reference.host} has no {reference.repository}:{reference.version}")
        return found

    def blob(
        self, reference: ImageReference, digest: str, limit_bytes: int, flight: Flight, *, uri: str
    ) -> bytes:
        """A small blob, verified.

        Raises:
            ArtifactUnavailable, ArtifactInvalid: as `manifest`; or larger than `limit_bytes`.
        """

        def ask() -> bytes:
            with self._get(reference, f"blobs/{digest}", flight, uri=uri) as answer:
                self._require_ok(answer, uri, f"blob {digest}")
                return answer.read_all(limit_bytes)

        content = self._persist(ask, flight, uri)
        if len(content) > limit_bytes:
            raise ArtifactInvalid(uri, f"blob {digest} is larger than {limit_bytes} bytes")
        if (found := _digest_of(content, digest)) != digest:
            raise ArtifactInvalid(uri, f"blob {digest} is {found}")
        return content

    @contextmanager
    def open_blob(
        self, reference: ImageReference, digest: str, headers: Mapping[str, str], flight: Flight, *, uri: str
    ) -> Iterator[Answer]:
        """The answer to one request for a blob, whatever its status; nothing is retried.

        Raises:
            WebFailure: no answer, or one that may be another in a moment.
            ArtifactUnavailable: the registry refuses us.
        """
        with self._get(reference, f"blobs/{digest}", flight, uri=uri, headers=headers) as answer:
            yield answer

    def referrers(self, reference: ImageReference, digest: str, flight: Flight, *, uri: str) -> bytes | None:
        """The index of what is attached to the manifest `digest`; None where the registry knows none."""

        def ask() -> bytes | None:
            with self._get(reference, f"referrers/{digest}", flight, uri=uri) as answer:
                if answer.status == 404 or "index" not in answer.headers.get("content-type", ""):
                    return None
                self._require_ok(answer, uri, f"referrers of {digest}")
                return answer.read_all(DOCUMENT_BYTES)

        content = self._persist(ask, flight, uri)
        if content is not None:
            return content
        try:
            tagged = reference.tagged(digest.replace(":", "-", 1))
            return self.manifest(tagged, flight, uri=uri).content
        except ArtifactMissing:
            return None

    @contextmanager
    def _get(
        self,
        reference: ImageReference,
        path: str,
        flight: Flight,
        *,
        uri: str,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[Answer]:
        origin = self._origin(self.host_of(reference), flight)
        url = f"{origin}/v2/{reference.repository}/{path}"
        authorization = self._tokens.kept(origin, reference.repository)
        entry: Entry | None = None
        while True:
            with self.web.get(url, flight, headers=headers, authorization=authorization) as answer:
                if answer.status != 401:
                    require_lasting(answer, f"registry {reference.host}")
                    yield answer
                    return
                challenge = Challenge.parse(answer.headers.get("www-authenticate", ""))
                reason = _error_text(answer.read_all(_REFUSAL_BYTES))
            self._tokens.forget(origin, reference.repository)
            if entry is not None:
                told = f" ({reason})" if reason else ""
                raise entry.refused(f"registry {reference.host} answers 401 to {entry.who}{told}")
            if challenge is None:
                raise ArtifactUnavailable(uri, f"{reference.host} answers 401 and does not say what it wants")
            login = self.logins.of(reference)
            remedy = self.logins.remedy(reference, login)
            entry = Entry(challenge, origin, reference.repository, login, uri, remedy)
            authorization = self._tokens.obtain(entry, flight)

    def _origin(self, host: str, flight: Flight) -> str:
        if host == _HUB_HOST:
            return f"https://{host}"
        secure = f"https://{host}"
        if not may_be_plain(host):
            return secure
        with self._lock:
            if host in self._origins:
                return self._origins[host]
        origin = secure
        try:
            self._ping(secure, flight)
        except WebFailure as failure:
            if failure.is_untrusted:  # somebody speaks TLS there: never in clear to them
                raise
            origin = f"http://{host}"
            self._ping(origin, flight)
        with self._lock:
            self._origins[host] = origin
        return origin

    def _ping(self, origin: str, flight: Flight) -> None:
        with self.web.get(f"{origin}/v2/", flight) as answer:
            answer.drain()

    def _persist(self, ask: Callable[[], Result], flight: Flight, uri: str) -> Result:
        try:
            return self.patience.persist(ask, flight)
        except WebFailure as failure:
            raise ArtifactUnavailable(uri, str(failure)) from failure

    def _require_ok(self, answer: Answer, uri: str, what: str) -> None:
        if answer.status == 200:
            return
        reason = _error_text(answer.read_all(_REFUSAL_BYTES))
        said = f"{what}: the registry answers {answer.status}" + (f" ({reason})" if reason else "")
        hint = "; `docker login` on this node may help" if answer.status == 403 else ""
        raise ArtifactUnavailable(uri, said + hint)


def _digest_of(content: bytes, like: str) -> str:
    algorithm = like.partition(":")[0] or "sha256"
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def _error_text(content: bytes) -> str:
    """What the registry says in its error document, shortened; "" where it says nothing."""
    try:
        first = json.loads(content)["errors"][0]
        text = f"{first.get('code', '')}: {first.get('message', '')}"
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""
    return " ".join(text.split())[:_SHOWN_REASON]
