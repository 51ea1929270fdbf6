"""The product's worker in memory under the name that the tests know it by."""

from localai_worker.app.testing import GALLERIES, GALLERY, MemoryNode, memory_node, memory_settings

__all__ = ["GALLERIES", "GALLERY", "MemoryNode", "memory_node", "memory_settings"]
