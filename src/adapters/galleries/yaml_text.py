"""YAML whose scalars stay the text somebody wrote: `1.10` is no number here."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from ...domain.errors import ArtifactInvalid
from ...domain.ports.galleries import PlainText

_DEPTH = 100
_MERGED_KEYS = 1_000_000
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_NULL_TAG = "tag:yaml.org,2002:null"
_MERGE_TAG = "tag:yaml.org,2002:merge"


def parse_yaml(content: bytes, *, uri: str) -> object:
    """One YAML document as lists, dicts with text keys, and texts, `PlainText` without quotes; null is "".

    Merge keys (`<<`) work, aliased parts are shared and not copied, other tags have no effect. Of a
    key given twice the last one counts.

    Raises:
        ArtifactInvalid: no single YAML document, or one that contains itself, is nested deeper than
            100 levels or has keys that are no text.
    """
    reading = _Reading(uri)
    try:
        # Events, not nodes: libyaml's composer recurses, and a deep document ends the process.
        for event in yaml.parse(content, Loader=yaml.CSafeLoader):
            reading.take(event)
    except yaml.YAMLError as error:
        raise ArtifactInvalid(uri, f"it is no YAML: {' '.join(str(error).split())}") from error
    return reading.document()


@dataclass
class _Part:
    """A list or mapping whose end has not been read yet."""

    value: list[object] | dict[str, object]
    key: str | None = None  # of the value that comes next, in a mapping
    is_merge: bool = False
    merges: list[dict[str, object]] = field(default_factory=list)


@dataclass
class _Reading:
    """Puts the events of one document together."""

    uri: str
    _open: list[_Part] = field(default_factory=list)
    _anchors: dict[str, object] = field(default_factory=dict)
    _documents: list[object] = field(default_factory=list)
    _merged_keys: int = 0

    def take(self, event: yaml.Event) -> None:
        match event:
            case yaml.ScalarEvent():
                is_plain = not event.style and event.tag is None
                is_merge = event.tag == _MERGE_TAG or (is_plain and event.value == "<<")
                is_null = event.tag == _NULL_TAG or (is_plain and event.value in _NULLS)
                value = "" if is_null else event.value
                self._add(PlainText(value) if is_plain or is_null else value, event.anchor, is_merge=is_merge)
            case yaml.AliasEvent():
                self._add(self._aliased(event.anchor or ""), None)
            case yaml.SequenceStartEvent():
                self._begin([], event.anchor)
            case yaml.MappingStartEvent():
                self._begin({}, event.anchor)
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                self._end()
            case _:
                pass  # begin and end of stream and document carry nothing

    def document(self) -> object:
        """The one document there was."""
        if len(self._documents) != 1:
            count = len(self._documents)
            raise ArtifactInvalid(
                self.uri, f"it has {count} YAML documents, one is wanted" if count else "it is empty"
            )
        return self._documents[0]

    def _begin(self, value: list[object] | dict[str, object], anchor: str | None) -> None:
        if len(self._open) >= _DEPTH:
            raise ArtifactInvalid(self.uri, f"nested deeper than {_DEPTH} levels")
        self._expect_value("a list or mapping")
        if anchor is not None:
            self._anchors[anchor] = value
        self._open.append(_Part(value))

    def _end(self) -> None:
        part = self._open.pop()
        if isinstance(part.value, dict):
            for merged in part.merges:
                self._merged_keys += len(merged)
                if self._merged_keys > _MERGED_KEYS:
                    raise ArtifactInvalid(self.uri, f"merge keys bring in more than {_MERGED_KEYS} keys")
                for key, value in merged.items():
                    part.value.setdefault(key, value)
        self._attach(part.value)

    def _add(self, value: object, anchor: str | None, *, is_merge: bool = False) -> None:
        if anchor is not None:
            self._anchors[anchor] = value
        part = self._open[-1] if self._open else None
        if part is not None and isinstance(part.value, dict) and part.key is None:
            if not isinstance(value, str):
                raise ArtifactInvalid(self.uri, "a mapping key that is no text")
            part.key, part.is_merge = value, is_merge
        else:
            self._attach(value)

    def _expect_value(self, found: str) -> None:
        part = self._open[-1] if self._open else None
        if part is not None and isinstance(part.value, dict) and part.key is None:
            raise ArtifactInvalid(self.uri, f"{found} as a mapping key")

    def _attach(self, value: object) -> None:
        if not self._open:
            self._documents.append(value)
            return
        part = self._open[-1]
        if isinstance(part.value, list):
            part.value.append(value)
            return
        assert part.key is not None
        if part.is_merge:
            part.merges.extend(self._mappings(value))
        else:
            part.value[part.key] = value
        part.key = None

    def _mappings(self, value: object) -> Iterator[dict[str, object]]:
        for each in value if isinstance(value, list) else [value]:
            if not isinstance(each, dict):
                raise ArtifactInvalid(self.uri, "a merge key (<<) takes a mapping or a list of mappings")
            yield each

    def _aliased(self, anchor: str) -> object:
        if anchor not in self._anchors:
            raise ArtifactInvalid(self.uri, f"alias *{anchor} refers to nothing")
        value = self._anchors[anchor]
        if any(part.value is value for part in self._open):
            raise ArtifactInvalid(self.uri, f"*{anchor} contains itself")
        return value
