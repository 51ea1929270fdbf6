"""A node in memory that prefetches models."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from localai_worker.adapters.memory.archives import InMemoryArchives
from localai_worker.adapters.memory.artifacts import InMemoryArtifacts
from localai_worker.adapters.memory.downloads import InMemoryDownloads
from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.adapters.memory.galleries import InMemoryGalleries
from localai_worker.adapters.memory.hardware import InMemoryHardware
from localai_worker.adapters.memory.machine import InMemoryMachine
from localai_worker.adapters.memory.model_hub import InMemoryModelHub
from localai_worker.adapters.memory.network import InMemoryNetwork
from localai_worker.domain.download_file import DownloadFile
from localai_worker.domain.galleries import Gallery
from localai_worker.domain.install_model import InstallModel
from localai_worker.domain.prefetch_models import PrefetchModels
from localai_worker.domain.prefetched_files import PrefetchedFiles
from localai_worker.domain.read_galleries import ReadGalleries
from localai_worker.domain.receive_files import ReceiveFiles
from localai_worker.domain.validate_paths import FileRoots
from tests.snapshots import in_memory_snapshots

MODELS = Path("/srv/models")
SITE = Gallery("site", "https://galleries.example/index.yaml")
OTHER = Gallery("other", "https://other.example/index.yaml")
FILE = "https://files.example/m.gguf"


class Node:
    def __init__(self) -> None:
        self.filesystem = InMemoryFileSystem()
        self.documents = InMemoryGalleries({SITE.url: (), OTHER.url: ()})
        self.web = InMemoryDownloads({FILE: b"weights"})
        self.artifacts = InMemoryArtifacts(self.filesystem)
        self.network = InMemoryNetwork(InMemoryMachine(), names={"docs.example": ("93.184.216.34",)})
        self.galleries = [SITE, OTHER]
        self.hub = InMemoryModelHub(self.web)
        prefetched = PrefetchedFiles(self.filesystem, MODELS)
        installer = InstallModel(
            self.filesystem,
            MODELS,
            self.documents,
            DownloadFile(self.filesystem, self.web),
            self.artifacts,
            InMemoryArchives(self.filesystem),
            prefetched,
            in_memory_snapshots(self.filesystem, self.hub, prefetched),
        )
        self.files_service = ReceiveFiles(
            self.filesystem,
            FileRoots(models=MODELS, data=Path("/srv/data"), staging=Path("/srv/staging")),
            prefetched=installer.prefetched,
        )
        self.service = PrefetchModels(
            ids=(),
            galleries=self.galleries,
            indexes=ReadGalleries(self.documents, self.filesystem, MODELS),
            installer=installer,
            downloads=self.web,
            names=self.network,
            hardware=InMemoryHardware(),
            capability="default",
        )

    def list_models(self, *entries: dict[str, Any], gallery: Gallery = SITE) -> None:
        self.documents.indexes[gallery.url] = entries

    async def prefetch(self, *ids: str) -> list[str]:
        self.service.ids = ids
        await self.service.run()
        return self.files

    @contextmanager
    def bugs(self) -> Iterator[list[str]]:
        """What was logged with a traceback."""
        found: list[str] = []

        class Traced(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if record.exc_info:
                    found.append(f"{record.getMessage()}: {record.exc_info[1]!r}")

        handler, logger = Traced(), logging.getLogger("localai_worker.domain.prefetch_models")
        logger.addHandler(handler)
        try:
            yield found
        finally:
            logger.removeHandler(handler)

    @property
    def files(self) -> list[str]:
        return [str(path.relative_to(MODELS)) for path in self.filesystem.files(MODELS)]

    def config(self, name: str) -> Any:
        content = self.filesystem.get(MODELS / f"{name}.yaml")
        assert content is not None
        return json.loads(content)


def model(name: str, uri: str = FILE, filename: str = "m.gguf", **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "overrides": {"backend": "x"},
        "files": [{"filename": filename, "uri": uri}],
        **fields,
    }
