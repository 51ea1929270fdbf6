"""What an object store fails with: the type says what a caller can do, the text which setting to look at."""

from dataclasses import dataclass

from .errors import WorkerError


@dataclass(eq=False)
class StoreFailure(WorkerError):
    """An operation of the object store failed; `operation` is what was tried, with its key."""

    operation: str
    reason: str

    def __str__(self) -> str:
        return f"{self.operation}: {self.reason}"


class StoreUnavailable(StoreFailure):
    """The store could not be reached, or broke off, also after retries; trying again later is safe."""


class StoreRefused(StoreFailure):
    """The store answered and said no: bucket, credentials, region or clock are wrong."""


class ObjectInvalid(StoreFailure):
    """What the store says cannot be: a hash or length that is not the object's, a key that none can have."""


@dataclass(eq=False)
class ObjectMissing(WorkerError):
    """Nothing is stored under a key; `where` says in which bucket or directory."""

    operation: str
    where: str

    def __str__(self) -> str:
        return f"{self.operation}: no such object in {self.where}; upload it first"


@dataclass(eq=False)
class ObjectChanged(WorkerError):
    """An object was replaced while it was read; start again with the new one."""

    key: str

    def __str__(self) -> str:
        return f"object {self.key} was replaced while it was read; try again"
