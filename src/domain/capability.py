"""Which build of a backend fits this node: the capability, and what is chosen by it.

Source: LocalAI pkg/system/capabilities.go.
"""

import re
from collections.abc import Mapping, Sequence

from .ports.hardware import Hardware

DISABLED = "disable"  # a forced capability with this value switches all filtering off
DEFAULT = "default"
CPU = "cpu"
_SMALL_VRAM_BYTES = 4 * 1024**3  # with this much or less, GPU builds are not worth it

# First match decides. A word counts where no letter stands beside it: `cuda12` and `amd64` hold one,
# `metallic` and `ship` do not (upstream looks for bare substrings, G-W25).
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


def detect(hardware: Hardware, forced: str | None, run_file: str | None) -> str:
    """The capability of a node with `hardware`.

    `forced` is LOCALAI_FORCE_META_BACKEND_CAPABILITY, taken verbatim. `run_file` is the text of the
    capability file (by default /run/localai/capability), None without one; a blank one says nothing.
    """
    if forced:
        return forced
    if run_file is not None and (said := run_file.strip()):
        return said
    if hardware.system == "darwin":
        return "metal" if hardware.architecture == "arm64" else "darwin-x86"
    cuda = next((f"-cuda-{major}" for major in (13, 12) if major in hardware.cuda_directories), "")
    if hardware.architecture == "arm64" and hardware.vendor == "nvidia":
        return f"nvidia-l4t{cuda}"  # however little VRAM: it is the system's RAM
    if not hardware.vendor or hardware.total_vram_bytes <= _SMALL_VRAM_BYTES:
        return DEFAULT
    return f"nvidia{cuda}" if hardware.vendor == "nvidia" else hardware.vendor


def choose(capability: str, builds: Mapping[str, str]) -> str | None:
    """The key of a meta backend's `builds` to install: the capability, else `default`, else `cpu`.

    None if it has none of them: the node cannot run it. There is no step from `nvidia-cuda-12` to
    `nvidia`; galleries list both.
    """
    return next((key for key in (capability, DEFAULT, CPU) if key in builds), None)


def is_compatible(
    capability: str, *, name: str, uri: str = "", builds: Mapping[str, str] | None = None
) -> bool:
    """Whether a gallery entry is for a node with `capability`.

    A meta backend, one with `builds`, is if one of them can be chosen; a concrete one by the words in
    its name and uri. Entries that name no hardware fit everywhere.
    """
    if capability == DISABLED:
        return True
    if builds:
        return choose(capability, builds) is not None
    text = f"{name} {uri}".lower()
    for words, capabilities in _RULES:
        if any(re.search(rf"(?<![a-z]){word}(?![a-z])", text) for word in words):
            return any(
                capability.startswith(wanted[:-1]) if wanted.endswith("*") else capability == wanted
                for wanted in capabilities
            )
    return True


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
