"""Libraries and the demo's model, taken out of installed distributions."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from localai_worker.app.demo.distributions import (
    MODEL_FILES,
    DistributionMissing,
    model_files,
    vendor_distributions,
)
from localai_worker.domain.errors import ArtifactInvalid, FileUnreadable, FileUnwritable

WEIGHTS = b"weights"
WEIGHTS_SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site-packages directory that this process searches."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    return site


def install(site: Path, name: str, files: dict[str, bytes]) -> None:
    """Install a distribution as pip does: its files, METADATA and a RECORD of all."""
    metadata = {
        f"{name}-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{name}-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\n",
        f"{name}-1.0.dist-info/licenses/LICENSE": b"do as you like",
    }
    for path, content in (files | metadata).items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_bytes(content)
    record = "".join(f"{path},,\n" for path in (*files, *metadata, f"{name}-1.0.dist-info/RECORD"))
    (site / f"{name}-1.0.dist-info/RECORD").write_text(record)


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_what_programs_import_is_copied_and_nothing_else(site: Path, tmp_path: Path) -> None:
    install(
        site,
        "beam",
        {
            "beam/__init__.py": b"",
            "beam/core.so": b"\x7fELF",
            "beam/words.txt": b"a b",
            "beam/core.pyi": b"",
            "beam/core.h": b"",
            "beam/__pycache__/__init__.cpython-311.pyc": b"",
            "beam/tests/test_core.py": b"",
            "../bin/beam": b"#!/bin/sh\n",
        },
    )
    (site / "beam/core.so").chmod(0o755)
    vendor_distributions(["beam"], tmp_path / "lib")
    assert files_below(tmp_path / "lib") == {
        "beam/__init__.py",
        "beam/core.so",
        "beam/words.txt",
        "beam-1.0.dist-info/METADATA",
        "beam-1.0.dist-info/licenses/LICENSE",
    }
    assert (tmp_path / "lib/beam/core.so").stat().st_mode & 0o777 == 0o755


def test_two_distributions_share_a_namespace_package(site: Path, tmp_path: Path) -> None:
    install(site, "left", {"space/left.py": b"SIDE = 'left'\n"})
    install(site, "right", {"space/right.py": b"SIDE = 'right'\n"})
    vendor_distributions(["left", "right"], tmp_path / "lib")
    assert {"space/left.py", "space/right.py"} <= files_below(tmp_path / "lib")


def test_a_vendored_library_runs_without_this_environment(tmp_path: Path) -> None:
    vendor_distributions(["protobuf"], tmp_path / "lib")
    program = "from google.protobuf import message, __version__; print(message.__file__)"
    imported = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={"PYTHONPATH": str(tmp_path / "lib")},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert Path(imported.stdout.strip()).is_relative_to(tmp_path / "lib")


def test_a_distribution_that_is_not_installed_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(DistributionMissing, match=r"no-such-thing is not installed; install it with `pip"):
        vendor_distributions(["no-such-thing"], tmp_path / "lib")


def test_a_distribution_without_a_record_is_refused(site: Path, tmp_path: Path) -> None:
    install(site, "packaged", {"packaged.py": b""})
    (site / "packaged-1.0.dist-info/RECORD").unlink()
    with pytest.raises(DistributionMissing, match="packaged came without a RECORD"):
        vendor_distributions(["packaged"], tmp_path / "lib")


def test_a_damaged_distribution_is_refused(site: Path, tmp_path: Path) -> None:
    install(site, "beam", {"beam/__init__.py": b"", "beam/core.so": b""})
    (site / "beam/core.so").unlink()
    with pytest.raises(FileUnreadable, match="install it again") as caught:
        vendor_distributions(["beam"], tmp_path / "lib")
    assert caught.value.path.name == "core.so"


def test_a_target_that_cannot_be_written_is_named(site: Path, tmp_path: Path) -> None:
    install(site, "beam", {"beam/__init__.py": b""})
    (tmp_path / "lib").write_text("a file in its place")
    with pytest.raises(FileUnwritable):
        vendor_distributions(["beam"], tmp_path / "lib")
    assert (tmp_path / "lib").read_text() == "a file in its place"


def install_model(site: Path, weights: bytes = WEIGHTS, *, without: str = "") -> None:
    files = {f"tiny/model/{name}": b"{}" for name in MODEL_FILES}
    files |= {"tiny/model/model.safetensors": weights, "tiny/model/1_Pooling/config.json": b"pooling"}
    files |= {"tiny/__init__.py": b"raise RuntimeError('imported')\n"}
    files.pop(f"tiny/model/{without}", None)
    install(site, "tiny", files)


def test_model_files_are_found_without_importing_their_package(site: Path) -> None:
    install_model(site)
    found = model_files("tiny", WEIGHTS_SHA256)
    assert found == {name: site / "tiny/model" / name for name in MODEL_FILES}


def test_the_real_model_is_found_and_is_the_published_one() -> None:
    assert model_files()["model.safetensors"].stat().st_size == 90_868_376


def test_weights_of_another_sum_are_refused(site: Path) -> None:
    install_model(site, b"tampered")
    with pytest.raises(ArtifactInvalid, match=rf"expected {WEIGHTS_SHA256}; install it with"):
        model_files("tiny", WEIGHTS_SHA256)


@pytest.mark.parametrize("name", MODEL_FILES)
def test_a_lacking_model_file_is_named(name: str, site: Path) -> None:
    install_model(site, without=name)
    with pytest.raises(DistributionMissing, match=rf"tiny lacks {name}; install it with"):
        model_files("tiny", WEIGHTS_SHA256)


def test_a_model_that_is_not_installed_is_named_with_the_remedy() -> None:
    with pytest.raises(DistributionMissing, match=r"not installed; install it with .*requirements/model.txt"):
        model_files("no-such-model")
