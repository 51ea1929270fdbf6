"""The request target that Go sends for a URL put together by hand, as the frontend's file stager does.

Source: the `net/url` package behind LocalAI core/services/nodes/file_stager_http.go.
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from ...domain.errors import WorkerError

_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_PLAIN = rb"A-Za-z0-9\-_.~$&+,/:;=@"  # what Go's escape leaves as it is in a path
_TO_ESCAPE = re.compile(rb"[^" + _PLAIN + rb"]")
# A path as it was written is kept if nothing in it needs an escape; these may then stand for themselves.
_KEPT_AS_WRITTEN = re.compile(rb"[" + _PLAIN + rb"!'()*\[\]%]*")


@dataclass(eq=False)
class UnsendableKey(WorkerError):
    """A key from which Go makes no URL."""

    key: str
    reason: str

    def __str__(self) -> str:
        return f"no URL can be made of the key {self.key!r}: {self.reason}"


def go_request_target(prefix: str, key: str) -> bytes:
    """What stands in the request line for the URL `http://host` + `prefix` + `key`, nothing escaped before.

    `#` cuts the key, `?` begins a query. A key without a character that needs an escape goes as it is,
    `%2F` included; one with such a character, a space say, is decoded whole and escaped anew.

    Raises:
        UnsendableKey: a control character, or a `%` that begins no escape.
    """
    written = (prefix + key).encode(errors="surrogateescape")
    rest, _, fragment = written.partition(b"#")
    if _CONTROL.search(rest):
        raise UnsendableKey(key, "it holds a control character")
    path, mark, query = rest.partition(b"?")
    if _BROKEN_ESCAPE.search(path) or _BROKEN_ESCAPE.search(fragment):
        raise UnsendableKey(key, "a % in it begins no escape such as %20")
    if not _KEPT_AS_WRITTEN.fullmatch(path):
        path = _TO_ESCAPE.sub(lambda found: b"%%%02X" % found[0][0], unquote_to_bytes(path))
    return path + mark + query
