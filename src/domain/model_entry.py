"""Entries of model galleries, and the documents they build on."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from .errors import WorkerError
from .galleries import Gallery
from .messages.error_text import go_quote
from .yaml_values import YamlValue, typed

_WEIGHTS = (".gguf", ".safetensors", ".bin", ".pt")
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGTP]?)(i?)B?\s*", re.IGNORECASE)


@dataclass(eq=False)
class NoSuchModel(WorkerError):
    """No gallery has a model of this name."""

    name: str

    def __str__(self) -> str:
        return f"no model found with name {go_quote(self.name)}"


@dataclass(eq=False)
class InvalidModelEntry(WorkerError):
    """An entry of a model gallery, or the document it builds on, that cannot be used."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"gallery model {go_quote(self.name)} is invalid: {self.reason}"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file of a model: where it goes below the models directory, its hash ("": unknown), its source."""

    filename: str
    sha256: str
    uri: str

    @property
    def holds_weights(self) -> bool:
        return self.filename.lower().endswith(_WEIGHTS)


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A text that goes to `<name>.tmpl`."""

    name: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """What a model gallery offers under one name.

    `config` and `overrides` are None where the entry has none. `variants` name other entries of the same
    gallery list, other builds of the same model.
    Source: LocalAI core/gallery/models_types.go.
    """

    name: str
    gallery: Gallery
    url: str = ""
    description: str = ""
    license: str = ""
    icon: str = ""
    urls: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    size: str = ""
    backend: str = ""
    config: Mapping[str, YamlValue] | None = None
    overrides: Mapping[str, YamlValue] | None = None
    files: tuple[ModelFile, ...] = ()
    variants: tuple[str, ...] = ()

    @property
    def declared_bytes(self) -> int:
        """The size that is written in the entry; 0 without one that can be read."""
        return parse_size(self.size)

    @classmethod
    def from_mapping(cls, fields: Mapping[str, object], gallery: Gallery) -> Self:
        """The entry as the index wrote it; unknown keys are ignored.

        Raises:
            InvalidModelEntry: a field is not of its type.
        """
        read = _Reader(str(fields.get("name", "")), fields)
        return cls(
            name=read.text("name"),
            gallery=gallery,
            url=read.text("url"),
            description=read.text("description"),
            license=read.text("license"),
            icon=read.text("icon"),
            urls=read.texts("urls"),
            tags=read.texts("tags"),
            size=read.text("size"),
            backend=read.text("backend"),
            config=read.map("config_file"),
            overrides=read.map("overrides"),
            files=read.files(),
            variants=tuple(each.text("model") for each in read.objects("variants")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseDocument:
    """What the `url` of an entry leads to: a configuration as YAML text, files and prompt templates."""

    name: str = ""
    urls: tuple[str, ...] = ()
    config_text: str = ""
    files: tuple[ModelFile, ...] = ()
    templates: tuple[PromptTemplate, ...] = ()

    @classmethod
    def from_document(cls, document: object, *, entry: str) -> Self:
        """The document as it was parsed.

        Raises:
            InvalidModelEntry: it is no mapping, or a field is not of its type.
        """
        if not isinstance(document, dict):
            raise InvalidModelEntry(entry, "the document its url leads to is no mapping")
        read = _Reader(entry, document)
        return cls(
            name=read.text("name"),
            urls=read.texts("urls"),
            config_text=read.text("config_file"),
            files=read.files(),
            templates=tuple(
                PromptTemplate(each.text("name"), each.text("content"))
                for each in read.objects("prompt_templates")
            ),
        )


def parse_size(text: str) -> int:
    """Bytes of a size for people: `14.5GB` counts in thousands, `13.5GiB` in 1024s; 0 for anything else."""
    found = _SIZE.fullmatch(text)
    if found is None:
        return 0
    number, unit, binary = found.groups()
    power = " KMGTP".index(unit.upper()) if unit else 0
    step: int = 1024 if binary else 1000
    return round(float(number) * int(step**power))


@dataclass(frozen=True)
class _Reader:
    """Reads fields of their types, null and absent ones as empty."""

    name: str
    fields: Mapping[str, object] = field(default_factory=dict)

    def text(self, key: str) -> str:
        value = self.fields.get(key) or ""
        if not isinstance(value, str):
            raise self._invalid(key, "a text")
        return str(value)

    def texts(self, key: str) -> tuple[str, ...]:
        values = self._list(key)
        if not all(isinstance(value, str) for value in values):
            raise self._invalid(key, "a list of texts")
        return tuple(str(value) for value in values)

    def objects(self, key: str) -> tuple["_Reader", ...]:
        found = []
        for value in self._list(key):
            if not isinstance(value, dict):
                raise self._invalid(key, "a list of mappings")
            found.append(_Reader(self.name, value))
        return tuple(found)

    def map(self, key: str) -> Mapping[str, YamlValue] | None:
        value = self.fields.get(key)
        if not value and not isinstance(value, dict):
            return None
        if not isinstance(value, dict):
            raise self._invalid(key, "a mapping")
        return {str(name): typed(each) for name, each in value.items()} or None

    def files(self) -> tuple[ModelFile, ...]:
        return tuple(
            ModelFile(each.text("filename"), each.text("sha256"), each.text("uri"))
            for each in self.objects("files")
        )

    def _list(self, key: str) -> Sequence[object]:
        value = self.fields.get(key) or []
        if not isinstance(value, list):
            raise self._invalid(key, "a list")
        return value

    def _invalid(self, key: str, wanted: str) -> InvalidModelEntry:
        return InvalidModelEntry(self.name, f"{key} is {str(self.fields[key])[:80]!r}, not {wanted}")
