"""The cache directory of a worker with an object store: where it is, what is known of it, what is busy."""

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from .cache_records import CacheRecord, CacheRecords
from .ports.clock import Clock
from .ports.filesystem import FileStat, FileSystem
from .ports.object_store import ObjectInfo, StagingKey


@dataclass
class CacheDirectory:
    """What those who fill the directory `root` and those who sweep it share.

    `busy`: relative paths of the files that are being fetched or compared.
    """

    filesystem: FileSystem
    records: CacheRecords
    clock: Clock
    root: Path
    busy: set[PurePosixPath] = field(default_factory=set)

    def now_s(self) -> float:
        """Seconds since 1970."""
        return self.clock.now().timestamp()

    def record_of(
        self, key: StagingKey, info: ObjectInfo, stat: FileStat, *, settled: bool = True
    ) -> CacheRecord:
        """The record of a file that holds, from now on, the version `info` of an object."""
        return CacheRecord(
            key=key,
            version=info.version,
            inode=stat.inode,
            size_bytes=stat.size_bytes,
            modified_ns=stat.modified_ns,
            used_s=self.now_s(),
            settled=settled,
        )
