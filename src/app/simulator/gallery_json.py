"""Galleries as a frontend writes them into a message."""

from collections.abc import Sequence

from ...domain.galleries import Gallery
from ...domain.messages.writing import NO_BODY, encode_object, without_zeros


def galleries_json(galleries: Sequence[Gallery]) -> str:
    """The JSON text of `backend_galleries`: a list, or `null` for none.

    Source: LocalAI core/gallery/gallery.go.
    """
    if not galleries:
        return NO_BODY.decode()
    return f"[{','.join(_written(gallery) for gallery in galleries)}]"


def _written(gallery: Gallery) -> str:
    fields: dict[str, object] = {
        "url": gallery.url,
        "name": gallery.name,
        "mirrors": gallery.mirrors,
        "verification": gallery.verification,
    }
    return encode_object(without_zeros(fields, always=("url", "name"))).decode()
