"""From a gallery entry to what an install of it writes: configuration, files, templates, and the record."""

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from .errors import WorkerError
from .messages.error_text import go_quote
from .model_entry import BaseDocument, InvalidModelEntry, ModelEntry, ModelFile, PromptTemplate
from .yaml_order import in_yaml_order
from .yaml_values import YamlValue

# Copied to the top level from `parameters`; the last two only where they are not zero.
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repeat_penalty", "presence_penalty")
_NONZERO_SAMPLING = frozenset({"repeat_penalty", "presence_penalty"})
_BACKEND = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(eq=False)
class ModelInstallsNothing(WorkerError):
    """An entry with neither configuration nor files."""

    name: str

    def __str__(self) -> str:
        missing = "it has no url, config_file, overrides or files"
        return f"gallery model {go_quote(self.name)} installs nothing: {missing}"


@dataclass(eq=False)
class OutsideModels(WorkerError):
    """A name in an entry that would lead out of the models directory."""

    value: str

    def __str__(self) -> str:
        return f"path is outside of trusted root: {go_quote(self.value)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPlan:
    """What installing the model `name` writes, every path checked.

    `config` is that of the model's YAML file, None for entries that bring files only. `base_text` is the
    configuration before the overrides, as the record keeps it. `document_name` is that of the document the
    entry builds on. With variants, `resolved_variant` is the entry whose build was chosen.
    Source: LocalAI core/gallery/models.go, InstallModel.
    """

    name: str
    description: str = ""
    icon: str = ""
    license: str = ""
    urls: tuple[str, ...] = ()
    document_name: str = ""
    base_text: str = ""
    config: Mapping[str, YamlValue] | None = None
    files: tuple[ModelFile, ...] = ()
    templates: tuple[PromptTemplate, ...] = ()
    resolved_variant: str = ""
    pinned_variant: str = ""

    @property
    def config_path(self) -> PurePosixPath:
        return below_models(f"{self.name}.yaml")

    @property
    def record_path(self) -> PurePosixPath:
        return record_path(self.name)

    def record(self) -> dict[str, YamlValue]:
        """The document of `._gallery_<name>.yaml`, keys in upstream's order."""
        told: dict[str, YamlValue] = {
            "description": self.description,
            "icon": self.icon,
            "license": self.license,
            "urls": list(self.urls),
            "name": self.document_name,
            "config_file": self.base_text,
            "files": [
                {"filename": each.filename, "sha256": each.sha256, "uri": each.uri} for each in self.files
            ],
            "prompt_templates": [{"name": each.name, "content": each.content} for each in self.templates],
        }
        if self.resolved_variant:
            told["entry_name"] = self.name
            told["resolved_variant"] = self.resolved_variant
        if self.pinned_variant:
            told["pinned_variant"] = self.pinned_variant
        return told


@dataclass(frozen=True, slots=True)
class Payload:
    """The build that is installed: an entry, and what was read for it.

    `document` is what its `url` leads to, None without one; `config` the parsed configuration of either,
    `config_text` the same as text.
    """

    entry: ModelEntry
    document: BaseDocument | None = None
    config: Mapping[str, YamlValue] | None = None
    config_text: str = ""


def plan_model(entry: ModelEntry, payload: Payload, *, pinned_variant: str = "") -> ModelPlan:
    """What installing `entry` writes, with the build `payload` (of `entry` itself, or of a variant).

    Raises:
        ModelInstallsNothing, OutsideModels, InvalidModelEntry.
    """
    build, document = payload.entry, payload.document
    if document is None and payload.config is None and not build.overrides and not build.files:
        raise ModelInstallsNothing(entry.name)
    config = None
    if document is not None or payload.config or build.overrides:
        merged = merge({**(payload.config or {}), "name": entry.name}, build.overrides or {})
        config = in_order(_with_sampling(merged))
        _check(entry.name, config)
    has_variants = bool(entry.variants)
    plan = ModelPlan(
        name=entry.name,
        description=entry.description,
        icon=entry.icon,
        license=entry.license,
        urls=(*(document.urls if document else ()), *entry.urls),
        document_name=document.name if document and not has_variants else entry.name,
        base_text=payload.config_text,
        config=config,
        files=(*(document.files if document else ()), *build.files),
        templates=document.templates if document else (),
        resolved_variant=build.name if has_variants else "",
        pinned_variant=pinned_variant,
    )
    for path in (f"{plan.name}.yaml", *(each.filename for each in plan.files)):
        below_models(path)
    for template in plan.templates:
        below_models(f"{template.name}.tmpl")
    return plan


def record_path(name: str) -> PurePosixPath:
    """Where the record of the model `name` lies."""
    path = below_models(name)
    return path.with_name(f"._gallery_{path.name}.yaml")


def below_models(value: str) -> PurePosixPath:
    """`value` as a path below the models directory; a leading `/` counts for nothing.

    Raises:
        OutsideModels: it is the directory itself, or leads out of it.
    """
    path = posixpath.normpath(value.lstrip("/")) if value.strip("/") else "."
    if path == "." or path.split("/")[0] == ".." or "\0" in path:
        raise OutsideModels(value)
    return PurePosixPath(path)


def merge(base: Mapping[str, YamlValue], over: Mapping[str, YamlValue]) -> dict[str, YamlValue]:
    """`over` laid over `base`: maps merge, everything else replaces, empty values too.

    Only an empty map leaves a map as it is.
    """
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(value, dict) and isinstance(below, dict) else value
    return merged


def _with_sampling(config: dict[str, YamlValue]) -> dict[str, YamlValue]:
    parameters = config.get("parameters")
    if not isinstance(parameters, dict):
        return config
    copied = {
        key: parameters[key]
        for key in _SAMPLING
        if key in parameters and key not in config and (parameters[key] or key not in _NONZERO_SAMPLING)
    }
    return {**config, **copied}


def in_order(value: Mapping[str, YamlValue]) -> dict[str, YamlValue]:
    """`value` with its keys in the order they are written, at every depth, also within lists."""
    return {key: _in_order(value[key]) for key in in_yaml_order(value)}


def _in_order(value: YamlValue) -> YamlValue:
    if isinstance(value, list):
        return [_in_order(each) for each in value]
    return in_order(value) if isinstance(value, dict) else value


def _check(name: str, config: Mapping[str, YamlValue]) -> None:
    """What an upstream worker would refuse to load as well."""
    parameters = config.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise InvalidModelEntry(name, "parameters is no mapping")
    downloads = config.get("download_files") or []
    if not isinstance(downloads, list) or not all(isinstance(each, dict) for each in downloads):
        raise InvalidModelEntry(name, "download_files is no list of mappings")
    named = {"parameters.model": parameters.get("model"), "mmproj": config.get("mmproj")}
    named |= {
        f"download_files[{at}].filename": each["filename"]
        for at, each in enumerate(downloads)
        if isinstance(each, dict) and "filename" in each
    }
    for field, value in {**named, "backend": config.get("backend")}.items():
        if value is not None and not isinstance(value, str):
            raise InvalidModelEntry(name, f"{field} is {value!r}, not a text")
        if value and (value.startswith("/") or ".." in value):
            raise InvalidModelEntry(name, f"{field} {value!r} leads out of the models directory")
    backend = config.get("backend")
    if backend and not _BACKEND.fullmatch(str(backend)):
        raise InvalidModelEntry(name, f"backend {backend!r} is no backend's name")
