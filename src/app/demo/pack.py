"""The example backend as an image archive, made from what is installed: no network, no container tools."""

import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

from ...domain.errors import FileUnreadable, FileUnwritable
from .distributions import vendor_distributions
from .oci_archive import pack_image

MINILM_REFERENCE = "localai-worker/minilm:latest"

# What the imports of examples/backends/minilm reach; typing_extensions is grpcio's only requirement.
MINILM_LIBRARIES = ("grpcio", "typing_extensions", "protobuf", "numpy", "safetensors", "tokenizers")


def pack_minilm(example: Path, archive: Path) -> str:
    """Pack the backend in the directory `example` (examples/backends/minilm) into the OCI archive `archive`.

    The image holds the example's files, the gRPC messages as `backend_pb2.py` and, in `lib/`, the libraries
    of this environment; it runs with the Python version of this environment. Returns the manifest's digest.

    Raises:
        FileUnreadable: `example` holds no run.sh.
        DistributionMissing: a library is not installed here.
        FileUnwritable: there is no room, or no permission, for the archive or for its parts in the
            temporary directory (some 80 MB).
    """
    if not (example / "run.sh").is_file():
        raise FileUnreadable(example / "run.sh", "no such file; name the directory examples/backends/minilm")
    with tempfile.TemporaryDirectory(prefix="localai-worker-pack-") as scratch:
        tree = Path(scratch) / "minilm"
        try:
            shutil.copytree(example, tree, ignore=shutil.ignore_patterns("__pycache__", "lib", ".*"))
            shutil.copyfile(messages_module(), tree / "backend_pb2.py")
        except OSError as error:
            raise FileUnwritable(tree, str(error)) from error
        vendor_distributions(MINILM_LIBRARIES, tree / "lib")
        return pack_image(tree, archive, MINILM_REFERENCE)


def messages_module() -> Path:
    """The generated messages, copied as a file: importing them is the packed backend's business."""
    spec = find_spec("...adapters.grpc.backend_pb2", __package__)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)
