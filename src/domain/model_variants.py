"""Which build of a model fits this node, where a gallery has several."""

from collections.abc import Sequence
from dataclasses import dataclass

from .capability import DEFAULT, is_compatible
from .model_entry import ModelEntry
from .ports.hardware import Hardware

# Engines by how well they serve on a kind of hardware, by parts of a backend's name.
_ON_GPU = ("vllm", "sglang", "llama-cpp")
_ENGINES = {
    "nvidia": _ON_GPU,
    "amd": _ON_GPU,
    "intel": _ON_GPU,
    "metal": ("mlx", "llama-cpp"),
    "vulkan": ("llama-cpp",),
}
_ON_CPU = ("llama-cpp", "vllm", "sglang")
_DRAFTS = ("dflash", "mtp")  # tags of builds that draft tokens ahead


@dataclass(frozen=True, slots=True)
class Variant:
    """One build: its entry, its backend ("" unknown), and the memory it takes (0 unknown)."""

    entry: ModelEntry
    backend: str = ""
    size_bytes: int = 0


def memory_budget_bytes(capability: str, hardware: Hardware) -> int:
    """The memory that a model may take: VRAM where the node computes on GPUs, else RAM; 0 unknown."""
    if capability != DEFAULT and hardware.total_vram_bytes:
        return hardware.total_vram_bytes
    return hardware.ram.total_bytes if hardware.ram else 0


def choose_variant(
    base: Variant, others: Sequence[Variant], *, capability: str, budget_bytes: int
) -> Variant:
    """The build to install: `base`, the entry's own, or one of `others`.

    Those whose backend cannot run here, or that are known not to fit, are out. What is known to fit goes
    first, then the base, then what nobody knows; then the better engine, then builds that draft, then the
    larger. Source: LocalAI core/gallery/resolve_variant.go.
    """

    def fits(variant: Variant) -> bool:
        return not variant.size_bytes or not budget_bytes or variant.size_bytes <= budget_bytes

    def rank(variant: Variant) -> tuple[int, int, int, int]:
        proven = bool(variant.size_bytes and budget_bytes) and fits(variant)
        certainty = 0 if proven else 1 if variant is base else 2
        draft = next((at for at, tag in enumerate(_DRAFTS) if tag in variant.entry.tags), len(_DRAFTS))
        return certainty, _engine_rank(variant.backend, capability), draft, -variant.size_bytes

    able = [each for each in others if is_compatible(capability, name=each.backend) and fits(each)]
    return min([base, *able], key=rank)


def _engine_rank(backend: str, capability: str) -> int:
    engines = next((each for prefix, each in _ENGINES.items() if capability.startswith(prefix)), _ON_CPU)
    return next((at for at, engine in enumerate(engines) if engine in backend), len(engines))
