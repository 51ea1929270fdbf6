"""Who must have signed the images of a gallery."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from .errors import WorkerError
from .ports.signatures import Signer

_LONGEST_PATTERN = 1000
_LONGEST_TEXT = 4000  # certificates hold urls; nobody matches patterns against novels


@dataclass(eq=False)
class InvalidPolicy(WorkerError):
    """A gallery's `verification` that decides nothing, or not what it seems to."""

    gallery: str
    reason: str

    def __str__(self) -> str:
        return f'the verification policy of gallery "{self.gallery}" is invalid: {self.reason}'


@dataclass(frozen=True, slots=True)
class SignaturePolicy:
    """What a signer must be. Of each pair at least one is given, and what is given must hold.

    Patterns are searched for, so they match anywhere unless they are anchored. `not_before`: signatures
    from before that moment count no more, whoever made them.
    Source: LocalAI pkg/oci/cosignverify.
    """

    issuer: str = ""
    issuer_pattern: re.Pattern[str] | None = None
    identity: str = ""
    identity_pattern: re.Pattern[str] | None = None
    not_before: datetime | None = None

    @classmethod
    def from_gallery(cls, gallery: str, verification: Mapping[str, object]) -> Self:
        """The policy that a gallery's `verification` writes.

        Raises:
            InvalidPolicy: a half of it is missing, or a part is not what it should be.
        """

        def text(key: str) -> str:
            value = verification.get(key)
            if value is not None and not isinstance(value, str):
                raise InvalidPolicy(gallery, f"{key} is {value!r}, not a text")
            return value or ""

        def pattern(key: str) -> re.Pattern[str] | None:
            written = text(key)
            if len(written) > _LONGEST_PATTERN:
                raise InvalidPolicy(gallery, f"{key} is longer than {_LONGEST_PATTERN} characters")
            try:
                return re.compile(written) if written else None
            except re.error as error:
                raise InvalidPolicy(
                    gallery, f"{key} {written!r} is no regular expression: {error}"
                ) from error

        policy = cls(
            text("issuer"),
            pattern("issuer_regex"),
            text("identity"),
            pattern("identity_regex"),
            _moment(gallery, text("not_before")),
        )
        for part, given in (
            ("issuer", policy.issuer or policy.issuer_pattern),
            ("identity", policy.identity or policy.identity_pattern),
        ):
            if not given:
                raise InvalidPolicy(gallery, f"it names no {part}; give {part} or {part}_regex")
        return policy

    def objection(self, signer: Signer) -> str:
        """Why `signer` is not who must have signed; "" if it is."""
        if not _is_one(signer.issuer, self.issuer, self.issuer_pattern):
            return f"signed with an identity of {signer.issuer!r}, which the gallery does not want"
        if not any(_is_one(each, self.identity, self.identity_pattern) for each in signer.identities):
            return f"signed by {' and '.join(map(repr, signer.identities))}, which the gallery does not want"
        if self.not_before is not None and signer.issued_at < self.not_before:
            signed, wanted = signer.issued_at.isoformat(), self.not_before.isoformat()
            return f"signed at {signed}, and the gallery takes nothing from before {wanted}"
        return ""


def _is_one(text: str, wanted: str, pattern: re.Pattern[str] | None) -> bool:
    if len(text) > _LONGEST_TEXT or not text.isprintable():
        return False
    return (not wanted or text == wanted) and (pattern is None or pattern.search(text) is not None)


def _moment(gallery: str, text: str) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise InvalidPolicy(gallery, f"not_before {text!r} is no time like 2026-05-01T00:00:00Z")
    return moment
