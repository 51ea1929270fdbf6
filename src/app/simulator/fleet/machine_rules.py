"""Rules about machines: who has a port, and that nothing half-written is ever visible."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import anyio

from ....adapters.memory.machine import FakeProcess
from ....domain.file_names import is_private_name
from .host import Host, key_of
from .inference import model_file
from .registry import is_whole
from .reply_rules import ReplyRules
from .violations import Verdict

REST_S = 15.0
_BACKENDS = Path("/node/backends")
_MODELS = Path("/node/models")
_METADATA = "metadata.json"
_MODEL_SUFFIX = ".gguf"


@dataclass(eq=False)
class MachineRules:
    """Looks at processes as they are started and at files as they appear."""

    verdict: Verdict
    replies: ReplyRules

    def spawned(self, host: Host, process: FakeProcess) -> None:
        """A worker has started a process."""
        key, port = key_of(process), process.port
        for other in host.groups:
            if other is not process and other.port == port:
                what = f"{key} is started on port {port} while {key_of(other)} still runs there"
                self.verdict.fault("two-owners", host, what)
        before = self.replies.handed.get(host.number, {}).pop(port, None)
        if before is not None and key_of(before) != key:
            now_s = anyio.current_time()
            rested_s = 0.0 if before.gone_s is None else now_s - before.gone_s
            if rested_s < REST_S - 0.001:
                what = f"port {port} goes from {key_of(before)} to {key} after {rested_s:.1f} s"
                self.verdict.fault("no-rest", host, what)
        self._check_backend(host, process.spec.directory.name)

    def appeared(self, host: Host, path: Path) -> None:
        """Something was put in place at `path`."""
        if any(is_private_name(part) for part in path.parts):
            return
        if path.is_relative_to(_BACKENDS) and path != _BACKENDS:
            self._check_backend(host, path.relative_to(_BACKENDS).parts[0])
        elif path.is_relative_to(_MODELS):
            self._check_model(host, path)

    def models(self, host: Host) -> None:
        """A file was received."""
        for path in host.filesystem.files(_MODELS):
            if not any(is_private_name(part) for part in path.parts):
                self._check_model(host, path)

    def after_death(self, host: Host) -> None:
        """A worker was killed: what is visible on its disk must be whole."""
        for path in host.filesystem.files(Path("/node")):
            if any(is_private_name(part) for part in path.parts):
                continue
            if path.is_relative_to(_BACKENDS) and path.name == "engine":
                self._check_backend(host, path.parent.name)
            elif path.is_relative_to(_MODELS):
                self._check_model(host, path)

    def _check_backend(self, host: Host, name: str) -> None:
        top = _BACKENDS / name
        files = {
            str(path.relative_to(top)): host.filesystem.get(path) or b""
            for path in host.filesystem.files(top)
        }
        files.pop(_METADATA, None)
        if files and not is_whole(name, files):
            self.verdict.fault("torn-file", host, f"backend {name} is not whole: {', '.join(sorted(files))}")

    def _check_model(self, host: Host, path: Path) -> None:
        name = PurePosixPath(path).name
        content = host.filesystem.get(path)
        if name.endswith(_MODEL_SUFFIX) and content not in {
            None,
            model_file(name.removesuffix(_MODEL_SUFFIX)),
        }:
            self.verdict.fault("torn-file", host, f"{path} holds only part of the model")
