"""metadata.json: what an installed backend's directory says about itself."""

import json
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Self

from .messages.document import decode_object, without_surrogates
from .messages.reading import read_text

METADATA_FILE = "metadata.json"
METADATA_LIMIT_BYTES = 1 << 20  # upstream writes well under one kilobyte

# What Go escapes beyond what JSON asks for; these characters only occur inside strings.
_GO_ESCAPES = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendMetadata:
    """The content of metadata.json; empty fields are absent in the file, whose key order is this one.

    A directory with `meta_backend_for` is a pointer: it has no program of its own.
    `uri` is the primary one, even when a mirror served the payload: upgrade detection compares it.
    Source: LocalAI core/gallery/backend_types.go, BackendMetadata.
    """

    alias: str = ""
    meta_backend_for: str = ""
    name: str = ""
    gallery_url: str = ""
    installed_at: str = ""
    version: str = ""
    uri: str = ""
    digest: str = ""

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Read as Go reads it: keys in any letter case, unknown ones ignored, null is empty.

        Raises:
            MalformedMessage: it is no JSON object, or a value is no text.
        """
        document = decode_object(content)
        return cls(**{field.name: read_text(document, field.name) for field in fields(cls)})

    def to_json(self) -> bytes:
        """The bytes upstream would write: indented by two spaces, no newline at the end."""
        written = {key: without_surrogates(text) for key, text in asdict(self).items() if text}
        return json.dumps(written, indent=2, ensure_ascii=False).translate(_GO_ESCAPES).encode()


def installation_time(now: datetime) -> str:
    """An aware time as `installed_at` has it: RFC 3339, whole seconds, `Z` where the offset is zero."""
    return now.isoformat(timespec="seconds").removesuffix("+00:00") + ("" if now.utcoffset() else "Z")
