"""localai-worker: the node agent of a LocalAI cluster."""

from importlib.metadata import version

__version__ = version("localai-worker")
