"""Which build of a backend fits this node: the capability, and what is chosen by it.

Source: LocalAI pkg/system/capabilities.go.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .ports.hardware import Hardware

DISABLED = "disable"  # a forced capability with this value switches all filtering off
DEFAULT = "default"
CPU = "cpu"
_SMALL_VRAM_BYTES = 4 * 1024**3  # with this much or less, GPU builds are not worth it

# First match decides. A word counts where no letter stands beside it: `cuda12` holds one, `metallic` and
# `ship` do not; and `amd64` is a processor, not a GPU (upstream looks for bare substrings, G-W25).
_RULES: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("darwin", "mlx", "metal"), ("metal", "darwin-x86")),
    (("l4t",), ("nvidia-l4t*",)),
    (("cuda", "nvidia"), ("nvidia*",)),
    (("rocm", "hip", "hipblas", "amd"), ("amd",)),
    (("sycl", "intel"), ("intel",)),
)

# What to look for in directory names when several backends share an alias, by capability prefix.
_PREFERENCES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("nvidia", ("cuda", "vulkan", "cpu")),
    ("amd", ("rocm", "hip", "vulkan", "cpu")),
    ("intel", ("sycl", "intel", "cpu")),
    ("metal", ("metal", "cpu")),
    ("darwin-x86", ("darwin-x86", "cpu")),
    ("vulkan", ("vulkan", "cpu")),
    ("", ("cpu",)),
)


@dataclass(frozen=True, slots=True)
class Step:
    """One rule of the detection: what it looks at, what is there, and what follows; "" where nothing does."""

    rule: str
    found: str
    capability: str = ""


@dataclass(frozen=True, slots=True)
class Detection:
    """A capability and how it came about: the rules looked at in their order, the last one decided."""

    capability: str
    steps: tuple[Step, ...]


def detect(hardware: Hardware, forced: str | None, run_file: str | None) -> str:
    """The capability of a node with `hardware`; see `trace`."""
    return trace(hardware, forced, run_file).capability


def trace(hardware: Hardware, forced: str | None, run_file: str | None) -> Detection:
    """The capability of a node with `hardware`, and why.

    `forced` is LOCALAI_FORCE_META_BACKEND_CAPABILITY, taken verbatim. `run_file` is the text of the
    capability file (by default /run/localai/capability), None without one; a blank one says nothing.
    """
    steps: list[Step] = []
    for step in _rules(hardware, forced, run_file):
        steps.append(step)
        if step.capability:
            return Detection(step.capability, tuple(steps))
    raise AssertionError("the last rule always decides")


def _rules(hardware: Hardware, forced: str | None, run_file: str | None) -> Iterator[Step]:
    yield Step("forced by the operator", forced or "no", forced or "")
    said = (run_file or "").strip()
    yield Step("capability file", "none" if run_file is None else said or "blank", said)
    system, architecture, vendor = hardware.system, hardware.architecture, hardware.vendor
    mac = ("metal" if architecture == "arm64" else "darwin-x86") if system == "darwin" else ""
    yield Step("system and architecture", f"{system}/{architecture}", mac)
    majors = [major for major in (13, 12) if major in hardware.cuda_directories]
    cuda = f"-cuda-{majors[0]}" if majors else ""
    directories = ", ".join(f"/usr/local/cuda-{major}" for major in majors) or "no CUDA directory"
    if architecture == "arm64" and vendor == "nvidia":  # however little VRAM: it is the system's RAM
        yield Step("NVIDIA on arm64", directories, f"nvidia-l4t{cuda}")
    gpus = ", ".join(gpu.name for gpu in hardware.gpus)
    yield Step("GPU vendor", f"{vendor} ({gpus})" if vendor else "no GPU", "" if vendor else DEFAULT)
    total_bytes = hardware.total_vram_bytes
    is_small = total_bytes <= _SMALL_VRAM_BYTES
    size = f"{total_bytes / 1024**3:.1f} GiB, {'not ' if is_small else ''}more than 4"
    yield Step("VRAM in all", size, DEFAULT if is_small else "")
    if vendor == "nvidia":
        yield Step("CUDA", directories, f"nvidia{cuda}" if cuda else "")
    yield Step("the vendor itself", vendor, vendor)


def choose(capability: str, builds: Mapping[str, str]) -> str | None:
    """The key of a meta backend's `builds` to install: the capability, else `default`, else `cpu`.

    None if it has none of them: the node cannot run it. There is no step from `nvidia-cuda-12` to
    `nvidia`; galleries list both.
    """
    return next((key for key in (capability, DEFAULT, CPU) if key in builds), None)


def is_compatible(
    capability: str, *, name: str, uri: str = "", builds: Mapping[str, str] | None = None
) -> bool:
    """Whether a gallery entry is for a node with `capability`; see `misfit`."""
    return not misfit(capability, name=name, uri=uri, builds=builds)


def misfit(capability: str, *, name: str, uri: str = "", builds: Mapping[str, str] | None = None) -> str:
    """Why a gallery entry is not for a node with `capability`; "" if it is.

    A meta backend, one with `builds`, is if one of them can be chosen; a concrete one by the words in
    its name and uri. Entries that name no hardware fit everywhere.
    """
    if capability == DISABLED:
        return ""
    if builds:
        if choose(capability, builds) is not None:
            return ""
        return f"it has builds for {', '.join(builds)}, none for {capability} and no default"
    named = f"{name} {uri}".lower().replace("amd64", "")
    for words, capabilities in _RULES:
        word = next((word for word in words if re.search(rf"(?<![a-z]){word}(?![a-z])", named)), "")
        if word:
            fits = any(
                capability.startswith(wanted[:-1]) if wanted.endswith("*") else capability == wanted
                for wanted in capabilities
            )
            wanted = " or ".join(wanted.replace("*", "...") for wanted in capabilities)
            return "" if fits else f'"{word}" in its name or uri is for {wanted}, this node is {capability}'
    return ""


def prefer(capability: str, directories: Sequence[str]) -> str | None:
    """Which of the backend `directories` that share an alias it stands for; None without any.

    The first, in their order, that holds the most wanted word; without any such word the first at all.
    Source: LocalAI core/gallery/backends.go.
    """
    words = next(words for prefix, words in _PREFERENCES if capability.startswith(prefix))
    for word in words:
        for directory in directories:
            if word in directory.lower():
                return directory
    return directories[0] if directories else None
