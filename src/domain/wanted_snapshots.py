"""Whether a model's configuration wants snapshots of repositories: because it says so, or by its backend."""

from collections.abc import Mapping
from dataclasses import dataclass

from .hub_patterns import BadPattern, check_pattern
from .snapshot_spec import COMPANION, MODEL, InvalidSnapshotSpec, SnapshotSpec, parse_repository
from .yaml_values import YamlValue

# Backends that load a model from a directory, as a repository is one.
# Source: LocalAI core/config/model_artifact_inference.go.
_DIRECTORY_BACKENDS = frozenset(
    {
        "diffusers",
        "fish-speech",
        "huggingface-embeddings",
        "liquid-audio",
        "longcat-video",
        "mamba",
        "nemo",
        "qwen-asr",
        "qwen-tts",
        "sentencetransformers",
        "sglang",
        "transformers",
        "transformers-musicgen",
        "vllm",
        "vllm-omni",
        "voxcpm",
    }
)
_PREFIXES = ("https://huggingface.co/", "huggingface://", "hf://", "hf.co/")


@dataclass(frozen=True, slots=True)
class WantedSnapshots:
    """What is wanted, the model's own first."""

    specs: tuple[SnapshotSpec, ...]


def declared_snapshots(config: Mapping[str, YamlValue]) -> WantedSnapshots | None:
    """What `config` names under `artifacts`; None without any.

    Raises:
        InvalidSnapshotSpec: an entry cannot be used, or they do not go together.
    """
    declared = config.get("artifacts")
    if not declared:
        return None
    if not isinstance(declared, list) or not all(isinstance(each, dict) for each in declared):
        raise InvalidSnapshotSpec("artifacts is no list of mappings")
    specs = tuple(SnapshotSpec.from_mapping(each) for each in declared if isinstance(each, dict))
    if specs[0].target != MODEL or any(each.target != COMPANION for each in specs[1:]):
        raise InvalidSnapshotSpec("the first entry is the model's own, all others are companions")
    names = [each.name for each in specs]
    if len(set(names)) != len(names):
        raise InvalidSnapshotSpec(f"two entries have one name: {', '.join(sorted(names))}")
    return WantedSnapshots(specs)


def inferred_reference(config: Mapping[str, YamlValue]) -> str:
    """The `parameters.model` of a configuration whose backend loads directories; "" where it may be none.

    Those that bring files of their own (`download_files`), or name others, are left alone.
    """
    parameters = config.get("parameters")
    model = parameters.get("model") if isinstance(parameters, dict) else None
    if config.get("backend") not in _DIRECTORY_BACKENDS or config.get("download_files"):
        return ""
    return model.strip() if isinstance(model, str) else ""


def snapshot_of(reference: str) -> SnapshotSpec | None:
    """What `reference` names: a repository, or one file of it; None for anything else.

    `owner/repository`, or with a scheme (`hf://`, `huggingface://`, `hf.co/`, `https://huggingface.co/`),
    then perhaps a path or `resolve/<revision>/<path>`. Upstream takes `main` there whatever is written.
    Source: LocalAI pkg/modelartifacts/reference.go.

    Raises:
        InvalidSnapshotSpec: it looks like one and is none.
    """
    rest = reference
    for prefix in _PREFIXES:
        rest = rest.removeprefix(prefix)
    with_scheme = rest != reference
    owner, _, rest = rest.removesuffix("/").partition("/")
    name, _, path = rest.partition("/")
    if not with_scheme and (not name or reference.startswith((".", "/")) or "://" in reference):
        return None
    repository = parse_repository(f"{owner}/{name}")
    if not path:
        return SnapshotSpec(repository=repository)
    revision = "main"
    if path == "resolve" or path.startswith("resolve/"):
        _, _, versioned = path.partition("/")
        revision, _, path = versioned.partition("/")
        if not path:
            raise InvalidSnapshotSpec(f"{reference!r} names no file behind resolve/<revision>/")
    try:
        check_pattern(path)
    except BadPattern as error:
        raise InvalidSnapshotSpec(f"{reference!r} names no file: {error}") from error
    return SnapshotSpec(repository=repository, revision=revision, allow=(path,))
