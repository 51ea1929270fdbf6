"""What a backend can be installed from, with the readers of a real worker."""

from pathlib import Path

import pytest

from localai_worker.app.artifact_parts import ArtifactParts
from localai_worker.app.testing import memory_settings
from localai_worker.domain.errors import UnsupportedSource


@pytest.mark.parametrize("uri", ["ollama://gemma", "ollama://org/gemma:2b"])
async def test_a_model_of_ollama_is_no_backend(tmp_path: Path, uri: str) -> None:
    """G-2.5.4: it is one file of weights; upstream writes it where a directory with a run.sh should be."""
    settings = memory_settings(LOCALAI_BACKENDS_PATH=str(tmp_path))
    readers = ArtifactParts(settings, {}).readers()
    into = tmp_path / "gemma"
    into.mkdir()
    for asked in (readers.fetch(uri, into), readers.describe(uri)):
        with pytest.raises(UnsupportedSource) as caught:
            await asked
        assert str(caught.value).startswith(f'no reader for source "{uri}"; supported: oci://')
    assert list(into.iterdir()) == []
