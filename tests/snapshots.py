"""Services around snapshots, on a real disk or in memory; and a hub of models on two real web servers."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from localai_worker.adapters.downloads.http import HttpDownloads
from localai_worker.adapters.downloads.hub import HttpModelHub
from localai_worker.adapters.filesystem.file_locks import LocalFileLocks
from localai_worker.adapters.filesystem.local import LocalFileSystem
from localai_worker.adapters.memory.file_locks import InMemoryFileLocks
from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.adapters.memory.loop_clock import LoopClock
from localai_worker.adapters.memory.model_hub import InMemoryModelHub
from localai_worker.adapters.system_clock import SystemClock
from localai_worker.domain.bind_snapshots import BindSnapshots
from localai_worker.domain.build_snapshot import BuildSnapshot
from localai_worker.domain.committed_snapshots import CommittedSnapshots
from localai_worker.domain.download_file import DownloadFile
from localai_worker.domain.ensure_snapshot import EnsureSnapshot
from localai_worker.domain.git_blob import git_blob
from localai_worker.domain.partial_trees import PartialTrees
from localai_worker.domain.ports.clock import Clock
from localai_worker.domain.ports.file_locks import FileLocks
from localai_worker.domain.ports.filesystem import FileSystem
from localai_worker.domain.ports.model_hub import ModelHub
from localai_worker.domain.prefetched_files import PrefetchedFiles
from localai_worker.domain.resolve_snapshot import ResolveSnapshot
from tests.web import Page, Web

MODELS = Path("/srv/models")
OURS, THEIRS = "a" * 16, "b" * 16  # writers


@dataclass(frozen=True)
class Parts:
    """What `ensure_snapshot` needs from outside."""

    filesystem: FileSystem
    hub: ModelHub
    download: DownloadFile
    locks: FileLocks
    clock: Clock


def ensure_snapshot(
    parts: Parts, models: Path, *, writer: str = OURS, token: str = "", first_wait_s: float = 2
) -> EnsureSnapshot:
    committed = CommittedSnapshots(parts.filesystem, models)
    return EnsureSnapshot(
        parts.filesystem,
        models,
        resolver=ResolveSnapshot(parts.hub, token, first_wait_s=first_wait_s),
        builder=BuildSnapshot(parts.filesystem, models, parts.download, committed),
        committed=committed,
        trees=PartialTrees(parts.filesystem, models, parts.clock, lambda: writer),
        locks=parts.locks,
    )


def in_memory_snapshots(
    filesystem: InMemoryFileSystem, hub: InMemoryModelHub, prefetched: PrefetchedFiles, token: str = ""
) -> BindSnapshots:
    download = DownloadFile(filesystem, hub.downloads)
    parts = Parts(filesystem, hub, download, InMemoryFileLocks(filesystem), LoopClock())
    return BindSnapshots(ensure_snapshot(parts, MODELS, token=token), prefetched)


def on_disk(models: Path, endpoint: str, prefetched: PrefetchedFiles, *, token: str = "") -> BindSnapshots:
    filesystem = LocalFileSystem()
    download = DownloadFile(filesystem, HttpDownloads(), first_wait_s=0)
    parts = Parts(filesystem, HttpModelHub(endpoint), download, LocalFileLocks(), SystemClock())
    return BindSnapshots(ensure_snapshot(parts, models, token=token, first_wait_s=0), prefetched)


@dataclass
class HubOnWeb:
    """Hugging Face's API on `web`; large files lie on another host, `store`, as they do there."""

    web: Web
    store: Web

    @property
    def endpoint(self) -> str:
        return self.web.url("")

    def publish(
        self,
        repository: str,
        files: Mapping[str, bytes],
        *,
        revision: str = "main",
        large: Collection[str] = (),
        page_size: int = 1000,
        token: str = "",
    ) -> str:
        """Make `revision` stand for a version with these files; its name."""
        listed = [_entry(path, content, large=path in large) for path, content in files.items()]
        listed.append({"type": "directory", "path": "some/directory", "size": 0, "oid": "0" * 40})
        commit = hashlib.sha1(json.dumps(listed).encode(), usedforsecurity=False).hexdigest()
        answer = json.dumps({"sha": commit, "id": repository}).encode()
        self.web.pages[f"/api/models/{repository}/revision/{quote(revision, safe='')}"] = Page(
            answer, token=token
        )
        self.list_files(repository, commit, listed, page_size=page_size, token=token)
        for path, content in files.items():
            page = Page(content, token=token)
            if path in large:
                name = f"/objects/{hashlib.sha256(content).hexdigest()}"
                self.store.pages[name] = Page(content)
                location = {"Location": self.store.url(name, "localhost")}
                page = Page(status=302, headers=location, token=token)
            self.web.pages[self.file_path(repository, commit, path)] = page
        return commit

    def list_files(
        self,
        repository: str,
        commit: str,
        entries: Sequence[object],
        *,
        page_size: int = 1000,
        token: str = "",
    ) -> None:
        """Let a version have these entries, whatever can be fetched."""
        tree = f"/api/models/{repository}/tree/{commit}?recursive=true&expand=true"
        for first in range(0, max(1, len(entries)), page_size):
            following = first + page_size
            headers = {}
            if following < len(entries):
                headers["Link"] = f'<{self.web.url(f"{tree}&cursor={following}")}>; rel="next"'
            path = f"{tree}&cursor={first}" if first else tree
            body = json.dumps(entries[first:following]).encode()
            self.web.pages[path] = Page(body, headers=headers, token=token)

    def file_path(self, repository: str, commit: str, path: str) -> str:
        return f"/{repository}/resolve/{commit}/{quote(path)}"


def _entry(path: str, content: bytes, *, large: bool) -> dict[str, object]:
    blob = git_blob(len(content))
    blob.update(content)
    entry: dict[str, object] = {
        "type": "file",
        "path": path,
        "size": len(content),
        "oid": blob.hexdigest(),
        "lastCommit": {"id": "0" * 40},
    }
    if large:
        entry["lfs"] = {
            "oid": hashlib.sha256(content).hexdigest(),
            "size": len(content),
            "pointerSize": 130,
        }
        entry["xetHash"] = "e" * 64
    return entry
