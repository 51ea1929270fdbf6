"""What every message shares: one JSON object whose keys are the fields, in their order."""

import dataclasses
from abc import ABC, abstractmethod
from functools import cache
from typing import ClassVar, Self

from .document import Fields, decode_object
from .writing import encode_object, without_zeros


@dataclasses.dataclass(frozen=True, slots=True)
class WireObject(ABC):
    """A message, or a row inside one, that reads and writes its wire form.

    Absent and null read as the zero value and unknown keys are ignored. Zero values are left out, except
    the fields in `_always`. Source: LocalAI core/services/messaging/subjects.go.
    """

    _always: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def from_wire(cls, payload: bytes) -> Self:
        """The message that `payload` encodes.

        Raises:
            MalformedMessage: `payload` is not one JSON object (or `null`) with fields of the right types.
        """
        return cls.from_fields(decode_object(payload))

    def to_wire(self) -> bytes:
        """The bytes that Go would write for this message."""
        return encode_object(self.to_fields())

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        """As `from_wire`, for an object that is part of a document already parsed."""
        return cls._read(fields)

    def to_fields(self) -> dict[str, object]:
        """What is written, by name and in order; rows inside are mappings."""
        return without_zeros(self._values(), always=self._always)

    def _values(self) -> dict[str, object]:
        return {name: _plain(getattr(self, name)) for name in _names(type(self))}

    @classmethod
    @abstractmethod
    def _read(cls, fields: Fields) -> Self:
        """Read each field with the reader of its type."""


@cache
def _names(message: type[WireObject]) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(message))


def _plain(value: object) -> object:
    if isinstance(value, WireObject):
        return value.to_fields()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
