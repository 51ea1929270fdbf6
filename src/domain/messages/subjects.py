"""Every NATS subject a backend worker shares with the frontend.

Source: LocalAI core/services/messaging/subjects.go.
"""

from dataclasses import dataclass

_UNSAFE_IN_A_TOKEN = str.maketrans(".*> \t\n", "------")


def sanitise_token(text: str) -> str:
    """`text` as one subject token: `.`, `*`, `>`, space, tab and newline each become `-`."""
    return text.translate(_UNSAFE_IN_A_TOKEN)


@dataclass(frozen=True, slots=True)
class NodeSubjects:
    """The subjects of one node; `node_id` is the raw id of the register reply.

    Publish/subscribe: `stop`, `node_stop`, `install_progress`. All others are request/reply.
    """

    node_id: str

    @property
    def install(self) -> str:
        """Install and start a backend: `BackendInstallRequest`."""
        return self._subject("backend.install")

    @property
    def upgrade(self) -> str:
        """Reinstall a backend, start nothing: `BackendUpgradeRequest`."""
        return self._subject("backend.upgrade")

    @property
    def stop(self) -> str:
        """Stop the processes of one model or backend, or all: `BackendStopRequest`."""
        return self._subject("backend.stop")

    @property
    def delete(self) -> str:
        """Delete an installed backend: `BackendDeleteRequest`."""
        return self._subject("backend.delete")

    @property
    def list(self) -> str:
        """List the installed backends: any body, `BackendListReply`."""
        return self._subject("backend.list")

    @property
    def model_unload(self) -> str:
        """Free a model's memory, keep its process: `ModelUnloadRequest`."""
        return self._subject("model.unload")

    @property
    def model_stop(self) -> str:
        """Stop exactly one replica: `ModelStopRequest`."""
        return self._subject("model.stop")

    @property
    def model_delete(self) -> str:
        """Delete a model's files: `ModelDeleteRequest`."""
        return self._subject("model.delete")

    @property
    def models_running(self) -> str:
        """List the live replicas: any body, `ModelsRunningReply`. Note the plural token."""
        return self._subject("models.running")

    @property
    def node_stop(self) -> str:
        """Shut the whole worker down: any body."""
        return self._subject("stop")

    @property
    def files_ensure(self) -> str:
        """Fetch an object into the cache: `FilesEnsureRequest`."""
        return self._subject("files.ensure")

    @property
    def files_stage(self) -> str:
        """Upload a local file: `FilesStageRequest`."""
        return self._subject("files.stage")

    @property
    def files_temp(self) -> str:
        """Make an empty temporary file: any body, `FilesTempReply`."""
        return self._subject("files.temp")

    @property
    def files_listdir(self) -> str:
        """List the files below a key prefix: `FilesListdirRequest`."""
        return self._subject("files.listdir")

    def install_progress(self, op_id: str) -> str:
        """Where the worker publishes a `BackendInstallProgress` of operation `op_id`, upgrades included."""
        return self._subject(f"backend.install.{sanitise_token(op_id)}.progress")

    def _subject(self, tail: str) -> str:
        return f"nodes.{sanitise_token(self.node_id)}.{tail}"
