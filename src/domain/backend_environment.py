"""What a backend inherits from the worker's environment: everything but the worker's own secrets (D9)."""

import re
from collections.abc import Iterable, Mapping

_SECRET_NAMES = frozenset(
    {
        "LOCALAI_REGISTRATION_TOKEN",
        "LOCALAI_NATS_JWT",
        "LOCALAI_NATS_USER_SEED",
        "LOCALAI_NATS_TLS_KEY",
        "LOCALAI_STORAGE_ACCESS_KEY",
        "LOCALAI_STORAGE_SECRET_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    }
)
# scheme://user:password@host, and scheme://token@host as NATS takes it.
_URL_WITH_CREDENTIALS = re.compile(r"[a-z][a-z0-9+.-]*://[^/@\s]+@", re.IGNORECASE)
_PROXY = re.compile(r"(https?|ftp|all|grpc)_proxy", re.IGNORECASE)

TOKEN_VARIABLE = "LOCALAI_GRPC_AUTH_TOKEN"  # noqa: S105 - a name, not a secret
WATCH_VARIABLE = "LOCALAI_BACKEND_PARENT_WATCH"


def backend_environment(
    inherited: Mapping[str, str], *, token: str, allowed: Iterable[str] | None = None
) -> dict[str, str]:
    """The environment of every backend.

    `inherited` is the worker's own. `allowed` (names, or prefixes ending in `*`) switches from "all but
    secrets" to a strict list; None keeps the first. A variable named in `allowed` passes even if it is a
    secret: the operator said so. `token` goes out as LOCALAI_GRPC_AUTH_TOKEN when it is not empty. Newer
    backends would end themselves when the worker does, and nothing could be taken over; the keeper ends
    those that nobody comes back for, so their watch is off unless the operator says otherwise.
    Source: LocalAI core/cli/worker.go, pkg/grpc auth.
    """
    if allowed is None:
        passed = {name: value for name, value in inherited.items() if not _is_secret(name, value)}
    else:
        patterns = tuple(allowed)
        passed = {name: value for name, value in inherited.items() if _matches(name, patterns)}
    passed.pop(TOKEN_VARIABLE, None)
    if token:
        passed[TOKEN_VARIABLE] = token
    passed[WATCH_VARIABLE] = inherited.get(WATCH_VARIABLE, "false")
    return passed


def _is_secret(name: str, value: str) -> bool:
    if _PROXY.fullmatch(name):
        return False  # a proxy's password is meant for whoever uses the proxy
    return name in _SECRET_NAMES or _URL_WITH_CREDENTIALS.search(value) is not None


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(
        name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern for pattern in patterns
    )
