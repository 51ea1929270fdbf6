"""Galleries: where backends and models come from."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from .errors import MalformedMessage, WorkerError
from .messages.document import Fields, JsonValue, Number, decode_object_list, without_surrogates
from .messages.reading import read_object, read_text, read_text_list


@dataclass(eq=False)
class GalleryListUnreadable(WorkerError):
    """A list of galleries that is not the JSON it should be.

    The text begins as the reply to an install with such a list. Source: LocalAI core/services/worker.
    """

    reason: str

    def __str__(self) -> str:
        return f'decoding backend galleries: {self.reason}; write [{{"name":"...","url":"https://..."}}]'


@dataclass(frozen=True, slots=True)
class Gallery:
    """One gallery: `url` of its index, then `mirrors`, tried in order.

    `verification`: the signature policy, keys in lower case (`issuer`, `issuer_regex`, `identity`,
    `identity_regex`, `not_before`) and values as written; None where the gallery has none, which is not
    the same as an empty one. Source: LocalAI core/gallery/gallery.go.
    """

    name: str
    url: str
    mirrors: tuple[str, ...] = ()
    verification: Mapping[str, object] | None = field(default=None, hash=False)


def parse_galleries(text: str) -> tuple[Gallery, ...]:
    """The galleries of a JSON list, in order; the text `null` is an empty list.

    Read as Go reads it: keys in any case, unknown keys ignored, null elements and fields are zero values.

    Raises:
        GalleryListUnreadable: no JSON list of objects, or a field of the wrong type.
    """
    try:
        return tuple(map(_gallery, decode_object_list(text.encode("utf-8", "surrogatepass"))))
    except MalformedMessage as error:
        raise GalleryListUnreadable(error.reason) from error


def _gallery(fields: Fields) -> Gallery:
    policy = read_object(fields, "verification")
    written = fields.values("verification")
    return Gallery(
        name=read_text(fields, "name"),
        url=read_text(fields, "url"),
        mirrors=tuple(read_text_list(fields, "mirrors")),
        verification=_plain_object(policy) if written and written[-1] is not None else None,
    )


def _plain_object(fields: Fields) -> dict[str, object]:
    return {without_surrogates(name).lower(): _plain(value) for name, value in fields.pairs}


def _plain(value: JsonValue) -> object:
    match value:
        case Fields():
            return _plain_object(value)
        case list():
            return [_plain(item) for item in value]
        case Number(literal):
            return literal
        case str():
            return without_surrogates(value)
        case _:
            return value
