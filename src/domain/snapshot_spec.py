"""Which repository, of which version and which of its files, a model's configuration wants to have here."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from .errors import WorkerError
from .hub_patterns import BadPattern, check_pattern
from .messages.writing import encode_object, without_zeros
from .yaml_values import YamlValue

HUGGING_FACE = "huggingface"  # the one type of source
MODEL, COMPANION = "model", "companion"
TOKEN_VARIABLE = "HF_TOKEN"  # noqa: S105 - its name
COMMIT = re.compile(r"[0-9a-f]{40}")
KEY = re.compile(r"[0-9a-f]{64}")
_COMPANION_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_REPOSITORY_PREFIXES = ("https://huggingface.co/", "huggingface://", "hf://")


@dataclass(eq=False)
class InvalidSnapshotSpec(WorkerError):
    """An entry of `artifacts`, or a reference to a repository, that cannot be used."""

    reason: str

    def __str__(self) -> str:
        return f"invalid artifacts: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """The version that was found. `primary_file`: the path in a snapshot of one file, else "".

    `cache_key` ("" while it is not known) names the directory of the snapshot.
    """

    endpoint: str
    revision: str
    cache_key: str = ""
    primary_file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotSpec:
    """An entry of a configuration's `artifacts`, in the form that is written down.

    `target` is `model` for what the backend loads, `companion` for what it needs besides, by `name`.
    `allow` and `ignore` are patterns, in order; without any all files are wanted.
    Source: LocalAI pkg/modelartifacts/types.go.
    """

    repository: str
    revision: str = "main"
    name: str = MODEL
    target: str = MODEL
    token_variable: str = ""
    allow: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    resolved: Resolved | None = None

    @classmethod
    def from_mapping(cls, fields: Mapping[str, object]) -> Self:
        """The entry as a configuration or a manifest has it; unknown keys are ignored.

        Raises:
            InvalidSnapshotSpec: a field is missing, not of its type, or means nothing.
        """
        source = _mapping(fields, "source")
        target = _text(fields, "target") or MODEL
        name = _text(fields, "name") or (MODEL if target == MODEL else "")
        _check_name(name, target)
        if (kind := _text(source, "type")) != HUGGING_FACE:
            raise InvalidSnapshotSpec(f"source.type is {kind!r}, only {HUGGING_FACE} is known")
        token_variable = _text(source, "token_env")
        if token_variable not in {"", TOKEN_VARIABLE}:
            raise InvalidSnapshotSpec(f"token_env is {token_variable!r}, want {TOKEN_VARIABLE} or nothing")
        revision = _text(source, "revision") or "main"
        if "\0" in revision:
            raise InvalidSnapshotSpec("revision holds a NUL")
        resolved = _mapping(fields, "resolved")
        return cls(
            repository=parse_repository(_text(source, "repo")),
            revision=revision,
            name=name,
            target=target,
            token_variable=token_variable,
            allow=_patterns(source, "allow_patterns"),
            ignore=_patterns(source, "ignore_patterns"),
            resolved=_resolved(resolved, target) if resolved else None,
        )

    def to_mapping(self) -> dict[str, YamlValue]:
        """What `from_mapping` reads, with the keys in upstream's order."""
        source = without_zeros(
            {
                "type": HUGGING_FACE,
                "repo": self.repository,
                "revision": self.revision,
                "token_env": self.token_variable,
                "allow_patterns": list(self.allow),
                "ignore_patterns": list(self.ignore),
            }
        )
        told: dict[str, object] = {"name": self.name, "target": self.target, "source": source}
        if self.resolved is not None:
            found = self.resolved
            told["resolved"] = without_zeros(
                {
                    "endpoint": found.endpoint,
                    "revision": found.revision,
                    "cache_key": found.cache_key,
                    "primary_file": found.primary_file,
                },
                always=("cache_key",),
            )
        return told  # type: ignore[return-value]

    def found_at(self, endpoint: str, commit: str) -> "SnapshotSpec":
        """This with the version `commit` of the hub at `endpoint`, and the key that follows from it."""
        resolved = Resolved(endpoint=endpoint, revision=commit, cache_key=self._key(endpoint, commit))
        return replace(self, resolved=resolved)

    @property
    def key_is_right(self) -> bool:
        """Whether it names a version and bears the key that follows from it."""
        found = self.resolved
        return found is not None and found.cache_key == self._key(found.endpoint, found.revision)

    def wants_same(self, other: "SnapshotSpec") -> bool:
        """Whether both ask for the same files, whatever was found for either."""
        return (self.repository, self.revision, self.allow, self.ignore) == (
            other.repository,
            other.revision,
            other.allow,
            other.ignore,
        )

    def _key(self, endpoint: str, commit: str) -> str:
        identity = {
            "type": HUGGING_FACE,
            "endpoint": endpoint,
            "repo": self.repository,
            "revision": commit,
            "allow_patterns": list(self.allow),
            "ignore_patterns": list(self.ignore),
        }
        always = ("type", "endpoint", "repo", "revision")
        return hashlib.sha256(encode_object(without_zeros(identity, always=always))).hexdigest()


def parse_repository(text: str) -> str:
    """`owner/repository` out of `text`, which may have a scheme before it and a slash behind it.

    Raises:
        InvalidSnapshotSpec: it names no repository.
    """
    name = text.strip()
    for prefix in _REPOSITORY_PREFIXES:
        name = name.removeprefix(prefix)
    name = name.removesuffix("/")
    parts = name.split("/")
    if len(parts) != 2 or any(part in {"", ".", ".."} for part in parts) or set(name) & set("?#\\\0"):
        raise InvalidSnapshotSpec(f"{text!r} names no repository; write <owner>/<repository>")
    return name


def _check_name(name: str, target: str) -> None:
    if target == MODEL and name != MODEL:
        raise InvalidSnapshotSpec(f"the model's own entry is named {name!r}, must be {MODEL!r}")
    if target == COMPANION and (name == MODEL or not _COMPANION_NAME.fullmatch(name)):
        wanted = "lower-case letters, digits, _ and -, 64 at most"
        raise InvalidSnapshotSpec(f"a companion is named {name!r}; wanted are {wanted}")
    if target not in {MODEL, COMPANION}:
        raise InvalidSnapshotSpec(f"target is {target!r}, want {MODEL} or {COMPANION}")


def _resolved(fields: Mapping[str, object], target: str) -> Resolved:
    revision, key = _text(fields, "revision").lower(), _text(fields, "cache_key")
    if not COMMIT.fullmatch(revision):
        raise InvalidSnapshotSpec(f"resolved.revision is {revision!r}, want 40 hex digits")
    if key and not KEY.fullmatch(key):
        raise InvalidSnapshotSpec(f"resolved.cache_key is {key!r}, want 64 hex digits")
    primary = _text(fields, "primary_file")
    if primary and target == COMPANION:
        raise InvalidSnapshotSpec("a companion has no primary_file")
    endpoint = _text(fields, "endpoint").rstrip("/")
    return Resolved(endpoint=endpoint, revision=revision, cache_key=key, primary_file=primary)


def _patterns(fields: Mapping[str, object], key: str) -> tuple[str, ...]:
    value = fields.get(key) or []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise InvalidSnapshotSpec(f"{key} is no list of texts")
    for pattern in value:
        try:
            check_pattern(pattern)
        except BadPattern as error:
            raise InvalidSnapshotSpec(f"{key} has {pattern!r}: {error}") from error
    return tuple(sorted(str(each) for each in value))


def _mapping(fields: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = fields.get(key) or {}
    if not isinstance(value, dict):
        raise InvalidSnapshotSpec(f"{key} is no mapping")
    return value


def _text(fields: Mapping[str, object], key: str) -> str:
    value = fields.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidSnapshotSpec(f"{key} is {value!r}, not a text")
    return value.strip()
