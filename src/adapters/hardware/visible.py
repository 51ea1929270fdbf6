"""Which of a vendor's devices the worker, and the backends that inherit its environment, may use (H-23)."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")

NVIDIA_VARIABLES = ("CUDA_VISIBLE_DEVICES",)
AMD_VARIABLES = ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")  # the second counts what the first leaves


def visible(
    devices: Sequence[tuple[str, T]], environment: Mapping[str, str], variables: Sequence[str]
) -> list[tuple[str, T]]:
    """What `variables` leave of `devices`, each given with its identifier, in the order they are named.

    A variable is a list of positions and identifiers (or the beginning of one); as for CUDA it ends at the
    first entry that names nothing, so that -1, "none" and a set but empty variable hide all. Positions count
    in the driver's order, which is CUDA's own where CUDA_DEVICE_ORDER is PCI_BUS_ID or all devices are alike.
    """
    left = list(devices)
    for variable in variables:
        text = environment.get(variable)
        if text is None:
            continue
        named: list[tuple[str, T]] = []
        for entry in (part.strip() for part in text.split(",")):
            device = _device(left, entry)
            if device is None:
                break
            if device not in named:
                named.append(device)
        left = named
    return left


def _device(devices: Sequence[tuple[str, T]], entry: str) -> tuple[str, T] | None:
    if entry.isascii() and entry.isdigit():
        return devices[int(entry)] if int(entry) < len(devices) else None
    if not entry:
        return None
    return next((device for device in devices if device[0].lower().startswith(entry.lower())), None)
