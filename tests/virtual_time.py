"""The product's virtual time under the name that the tests know it by."""

from localai_worker.app.virtual_time import VIRTUAL_TIME, AnyioBackend, VirtualTimeLoop

__all__ = ["VIRTUAL_TIME", "AnyioBackend", "VirtualTimeLoop"]
