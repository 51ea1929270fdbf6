"""Ordinary tar headers read quickly; tarfile takes a hundred microseconds for each."""

from dataclasses import dataclass
from tarfile import AREGTYPE, BLOCKSIZE, DIRTYPE, LNKTYPE, REGTYPE, SYMTYPE
from zlib import adler32

from .forward_reader import ForwardReader

_PAX, _LONG_NAME, _LONG_LINK = b"x", b"L", b"K"
_EXTENSIONS = frozenset({_PAX, _LONG_NAME, _LONG_LINK})
_ORDINARY = frozenset({REGTYPE, AREGTYPE, LNKTYPE, SYMTYPE, DIRTYPE})
_MOST_DIGITS = 7  # of the length of a pax record


@dataclass(slots=True)
class TarMember:
    """An entry of a tar archive. `kind` is its type as tarfile names them, REGTYPE for whatever is a file."""

    name: str
    kind: bytes
    mode: int
    size_bytes: int
    mtime_s: float
    link: str  # what a link leads to
    offset: int = 0  # of its content in the stream
    is_sparse: bool = False  # its content is stored without its holes


def read_ordinary(reader: ForwardReader) -> TarMember | None:
    """The next entry, if its headers are of the common kinds; else None, and the reader is where it was.

    What it reads it reads as tarfile does, but for owners and other numbers that nobody looks at. Numbers of
    base 256, pax records that say where content lies, damaged headers, and the end are left to tarfile.
    """
    block = reader.read(BLOCKSIZE)
    if block[156:157] in _EXTENSIONS:
        return _read_extended(block, reader)
    member = _parse(block)
    if member is None:
        reader.unread(block)
    else:
        member.offset = reader.tell()
    return member


def _read_extended(first: bytes, reader: ForwardReader) -> TarMember | None:
    """An entry with a pax header, or long names of GNU's, before its own; `first` is the first of them."""
    block, taken = first, [first]
    notes: dict[bytes, bytes] = {}
    while (kind := block[156:157]) in _EXTENSIONS and kind not in notes:
        size = _parse_size(block)
        if size is None:
            break
        content = reader.read(-(-size // BLOCKSIZE) * BLOCKSIZE)
        block = reader.read(BLOCKSIZE)
        taken += content, block
        notes[kind] = content[:size]
        if content[size : size + 1].strip(b"\0"):
            break
    member = _parse(block)
    if member is None or block[156:157] == AREGTYPE or not _apply(notes, member):
        reader.unread(b"".join(taken))
        return None
    member.offset = reader.tell()
    return member


def _apply(notes: dict[bytes, bytes], member: TarMember) -> bool:
    """Put what was found before the entry into it; False where tarfile has to."""
    if _PAX in notes:
        return len(notes) == 1 and _apply_records(notes[_PAX], member)
    if _LONG_NAME in notes:
        member.name = _text(notes[_LONG_NAME])
    if _LONG_LINK in notes:
        member.link = _text(notes[_LONG_LINK])
    return True


def _apply_records(records: bytes, member: TarMember) -> bool:
    """Put pax records, lines of `<length> <keyword>=<value>`, into an entry; False where tarfile has to."""
    at, end = 0, len(records)
    while at < end:
        space = records.find(b" ", at, at + _MOST_DIGITS + 1)
        digits = records[at:space]
        if space < 0 or not digits.isdigit():
            return False
        after = at + int(digits)
        keyword, equals, value = records[space + 1 : after - 1].partition(b"=")
        if after > end or records[after - 1 : after] != b"\n" or not equals:
            return False
        at = after
        if keyword == b"path":
            member.name = value.decode("utf-8", "surrogateescape").rstrip("/")
        elif keyword == b"linkpath":
            member.link = value.decode("utf-8", "surrogateescape")
        elif keyword == b"mtime":
            try:
                member.mtime_s = float(value)
            except ValueError:
                return False
        elif keyword in {b"size", b"hdrcharset"} or keyword.startswith(b"GNU.sparse"):
            return False
    return True


def _parse(block: bytes) -> TarMember | None:
    """The entry that a header of an ordinary kind describes by itself."""
    kind = block[156:157]
    if kind not in _ORDINARY:
        return None
    try:
        mode = int(block[100:108].rstrip(b" \0") or b"0", 8)
        size = int(block[124:136].rstrip(b" \0") or b"0", 8)
        mtime = int(block[136:148].rstrip(b" \0") or b"0", 8)
        checksum = int(block[148:156].rstrip(b" \0") or b"0", 8)
    except ValueError:  # base 256, or no number at all
        return None
    if not _is_sound(block, checksum) or mode < 0 or size < 0 or mtime < 0:
        return None
    name = _text(block[:100])
    if kind == AREGTYPE:
        kind = DIRTYPE if name.endswith("/") else REGTYPE  # as the oldest form writes them
    if kind == DIRTYPE:
        name = name.rstrip("/")
    if block[345:346] != b"\0":
        name = f"{_text(block[345:500])}/{name}"
    return TarMember(name, kind, mode, size, mtime, _text(block[157:257]))


def _parse_size(block: bytes) -> int | None:
    """How long the content of a pax header or a long name is."""
    try:
        size = int(block[124:136].rstrip(b" \0") or b"0", 8)
        checksum = int(block[148:156].rstrip(b" \0") or b"0", 8)
    except ValueError:
        return None
    return size if _is_sound(block, checksum) and size >= 0 else None


def _is_sound(block: bytes, checksum: int) -> bool:
    """Whether a header is whole, and its bytes, those of the checksum taken for blanks, add up to it.

    Adler-32 adds bytes up faster than `sum`: its lower half is one more than their sum, modulo 65521, which
    256 of them stay below.
    """
    parts = adler32(block[:148]), adler32(block[156:412]), adler32(block[412:])
    return len(block) == BLOCKSIZE and sum((part & 0xFFFF) - 1 for part in parts) + 8 * 32 == checksum


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")
