"""localai-worker: the node agent of a LocalAI cluster."""


def __getattr__(name: str) -> str:
    if name == "__version__":  # looked up when asked: it takes longer than the rest of the start
        from importlib.metadata import version

        return version("localai-worker")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
