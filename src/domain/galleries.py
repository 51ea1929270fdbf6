"""Galleries: where backends and models come from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from .errors import WorkerError


@dataclass(eq=False)
class GalleryListUnreadable(WorkerError):
    """A list of galleries that is not the JSON it should be."""

    reason: str

    def __str__(self) -> str:
        return f'a gallery list must be JSON like [{{"name":"localai","url":"https://..."}}]: {self.reason}'


@dataclass(frozen=True, slots=True)
class Gallery:
    """One gallery: `url` of its index, then `mirrors`, tried in order.

    `verification` is the signature policy as it was written (keys `issuer`, `issuer_regex`, `identity`,
    `identity_regex`, `not_before`), None where the gallery has none.
    Source: LocalAI core/gallery/gallery.go.
    """

    name: str
    url: str
    mirrors: tuple[str, ...] = ()
    verification: Mapping[str, object] | None = field(default=None, hash=False)


def parse_galleries(text: str) -> tuple[Gallery, ...]:
    """The galleries of a JSON list, in order; the text `null` is an empty list.

    Read as Go reads it: keys in any case, unknown keys ignored, `null` is the zero value.

    Raises:
        GalleryListUnreadable: no JSON list of objects, or a field of the wrong type.
    """
    try:
        entries = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise GalleryListUnreadable(str(error)) from error
    if entries is None:
        return ()
    if not isinstance(entries, list):
        raise GalleryListUnreadable(f"it is {_kind(entries)}, not a list")
    return tuple(_gallery(entry, f"entry {number}") for number, entry in enumerate(entries, 1))


def _gallery(entry: object, place: str) -> Gallery:
    fields = {key.lower(): value for key, value in _object(entry, place).items()}
    mirrors = fields.get("mirrors") or []
    if not isinstance(mirrors, list):
        raise GalleryListUnreadable(f"{place}: mirrors is {_kind(mirrors)}, not a list of texts")
    verification = fields.get("verification")
    return Gallery(
        name=_text(fields.get("name"), f"{place}: name"),
        url=_text(fields.get("url"), f"{place}: url"),
        mirrors=tuple(_text(mirror, f"{place}: a mirror") for mirror in mirrors),
        verification=None if verification is None else _object(verification, f"{place}: verification"),
    )


def _object(value: object, place: str) -> Mapping[str, object]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise GalleryListUnreadable(f"{place} is {_kind(value)}, not an object")
    return value


def _text(value: object, place: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise GalleryListUnreadable(f"{place} is {_kind(value)}, not a text")
    # Half a surrogate pair (an escape cut in two) could not be written anywhere; Go replaces it too.
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
