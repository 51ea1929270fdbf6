"""The playable backend as an image archive, and a gallery of it."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ...domain.errors import FileUnwritable
from ..demo.distributions import vendor_distributions
from ..demo.oci_archive import pack_image
from ..demo.pack import messages_module

PLAYABLE = "playable"
_LIBRARIES = ("grpcio", "typing_extensions", "protobuf")


def pack_playable(archive: Path) -> str:
    """Pack the backend with its libraries into the OCI archive `archive`; the digest of its manifest.

    Raises:
        DistributionMissing: a library is not installed here.
        FileUnwritable: there is no room, or no permission.
    """
    with tempfile.TemporaryDirectory(prefix="localai-worker-pack-") as scratch:
        tree = Path(scratch) / PLAYABLE
        try:
            shutil.copytree(
                Path(__file__).parent / PLAYABLE, tree, ignore=shutil.ignore_patterns("__*__*", ".*")
            )
            (tree / "run.sh").chmod(0o755)
            shutil.copyfile(messages_module(), tree / "backend_pb2.py")
        except OSError as error:
            raise FileUnwritable(tree, str(error)) from error
        vendor_distributions(_LIBRARIES, tree / "lib")
        return pack_image(tree, archive, f"localai-worker/{PLAYABLE}:latest")


def gallery_index(archive: Path, names: Sequence[str] = (PLAYABLE,)) -> bytes:
    """The index of a gallery whose entries `names` are all the image in `archive`."""
    entries = [
        {"name": name, "uri": f"ocifile://{archive}", "description": "for scenarios"} for name in names
    ]
    return json.dumps(entries).encode()  # JSON is YAML
