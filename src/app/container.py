"""The container: the one module that names concrete adapters, each imported only when it is built.

Every part can be replaced by overriding its provider; `memory_container.in_memory` replaces all that touch
the outside. Which bus is used is a setting (`bus=memory`), no code.
"""

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anyio

from ..domain import capability as capabilities
from ..domain.allocate_ports import PortPool
from ..domain.backend_environment import backend_environment
from ..domain.backend_logs import BackendLogs
from ..domain.bus_credentials import BusCredentials
from ..domain.bus_login import BusLogin
from ..domain.collect_output import CollectOutput
from ..domain.custody import Custody
from ..domain.deaths import Deaths
from ..domain.delete_backend import DeleteBackend
from ..domain.delete_model import DeleteModel
from ..domain.describe_node import DescribeNode
from ..domain.enrol import Enrolment
from ..domain.gallery_index import GalleryIndexes
from ..domain.heartbeats import Heartbeats
from ..domain.index_urls import hugging_face_endpoint
from ..domain.install import InstallBackends
from ..domain.installed import InstalledBackends
from ..domain.integrity import Integrity
from ..domain.node_identity import IdentityStore
from ..domain.node_report import NodeProfile
from ..domain.ports.hardware import Hardware
from ..domain.prefetched_files import PrefetchedFiles
from ..domain.process_journal import ProcessJournal
from ..domain.read_galleries import ReadGalleries
from ..domain.readiness import Readiness
from ..domain.receive_files import ReceiveFiles
from ..domain.recover import RecoverBackends
from ..domain.replace_backend import ReplaceBackend
from ..domain.resume import ResumeNode
from ..domain.start_backend import BackendStarter
from ..domain.stop_group import StopLadder
from ..domain.supervise import Supervisor
from ..domain.sweep_files import SweepFiles
from ..domain.sweep_installs import SweepInstalls
from ..domain.validate_paths import FileRoots
from . import integrity_parts, model_parts
from .artifact_parts import ArtifactParts
from .commands.backend import BackendCommands
from .commands.model import ModelCommands
from .control_plane import ControlPlane
from .settings import Settings
from .slim_injector import containers, providers
from .storage import build_storage, make_object_store
from .worker import Worker

_FORCED_CAPABILITY = "LOCALAI_FORCE_META_BACKEND_CAPABILITY"
_CAPABILITY_FILE = "LOCALAI_FORCE_META_BACKEND_CAPABILITY_RUN_FILE"
_DEFAULT_CAPABILITY_FILE = "/run/localai/capability"


def _nats_bus(settings: Settings) -> Any:
    from ..adapters.nats.bus import NatsMessageBus
    from ..adapters.nats.tls import TlsFiles

    files = (settings.nats_tls_ca, settings.nats_tls_cert, settings.nats_tls_key)
    tls = TlsFiles(*files) if any(files) else None
    return NatsMessageBus(settings.nats_url, client_name=settings.node_name, tls=tls)


def _memory_broker() -> Any:
    from ..adapters.memory.bus import InMemoryBroker

    return InMemoryBroker()


def _memory_bus(broker: Any) -> Any:
    from ..adapters.memory.bus import InMemoryMessageBus

    return InMemoryMessageBus(broker)


def _http_frontend(settings: Settings) -> Any:
    from ..adapters.frontend.client import HttpFrontendClient

    return HttpFrontendClient(settings.register_to, settings.registration_token)


def _grpc_client(settings: Settings) -> Any:
    from ..adapters.grpc.backend_client import GrpcBackendClient

    return GrpcBackendClient(settings.registration_token)


def _local_processes() -> Any:
    from ..adapters.processes.local import LocalProcesses

    return LocalProcesses()


def _local_filesystem() -> Any:
    from ..adapters.filesystem.local import LocalFileSystem

    return LocalFileSystem()


def _local_network() -> Any:
    from ..adapters.network.local import LocalNetwork

    return LocalNetwork()


def _local_hardware(environment: Mapping[str, str]) -> Any:
    from ..adapters.hardware.local import LocalHardware

    return LocalHardware(environment=environment)


def _oom_kills() -> Any:
    from ..adapters.hardware.oom import KernelOomKills

    return KernelOomKills()


def _output_files(settings: Settings) -> Any:
    from ..adapters.processes.outputs import LocalOutputFiles

    return LocalOutputFiles(settings.backend_log_mib * 1024 * 1024)


def _system_clock() -> Any:
    from ..adapters.system_clock import SystemClock

    return SystemClock()


def _gallery_documents() -> Any:
    from ..adapters.galleries.documents import GalleryDocumentReaders

    return GalleryDocumentReaders(
        {"file://": _document_files, "http://": _web_documents, "https://": _web_documents}
    )


def _document_files() -> Any:
    from ..adapters.galleries.files import FileDocuments

    return FileDocuments()


def _web_documents() -> Any:
    from ..adapters.galleries.http import HttpDocuments

    return HttpDocuments()


def _gallery_copies(root: Path) -> Path | None:
    return root.parent / "cache/gallery" if root.is_absolute() else None


def _ranged_files() -> Any:
    from ..adapters.filesystem.assembled import LocalRangedFiles

    return LocalRangedFiles()


def _open_files() -> Any:
    from ..adapters.processes.open_files import LocalOpenFiles

    return LocalOpenFiles()


def _file_app(
    files: ReceiveFiles, logs: BackendLogs, readiness: Readiness, node: DescribeNode, settings: Settings
) -> Any:
    from ..adapters.http_server.routes import node_routes

    return node_routes(files, logs, readiness, settings.registration_token, node)


def _parts_with_worries(*parts: Any) -> list[Any]:
    """Those that there are: a worker without an object store has none to worry about."""
    return [part for part in parts if part is not None]


def _http_server(make_app: Callable[[], Any], settings: Settings) -> Any:
    from ..adapters.http_server.lazy import LazyApplication
    from ..adapters.http_server.serve import HttpServer

    bind = settings.addresses.http_bind
    return HttpServer(LazyApplication(make_app), bind.host, bind.port)


def _profile(settings: Settings) -> NodeProfile:
    return NodeProfile(
        name=settings.node_name,
        address=str(settings.addresses.grpc),
        http_address=str(settings.addresses.http),
        token=settings.registration_token,
        labels=settings.node_labels,
        max_replicas_per_model=settings.max_replicas_per_model,
        vram_budget=settings.vram_budget,
        models_path=settings.models_path,
    )


def _fixed_login(settings: Settings) -> BusCredentials | None:
    if not settings.nats_jwt:
        return None
    return BusCredentials.parse(settings.nats_jwt, settings.nats_user_seed)


def _registration_attempts(settings: Settings) -> int:
    """Upstream's: longer where the NATS credentials come with the registration."""
    return 10 if settings.nats_jwt else 100


def _spread(pause_s: float) -> float:
    """A pause up to a tenth longer by chance."""
    return pause_s * random.uniform(1, 1.1)  # noqa: S311 - no secret


def _roots(settings: Settings) -> FileRoots:
    base = settings.models_path.parent
    return FileRoots(models=settings.models_path, data=base / "data", staging=base / "staging")


def _upload_limit(settings: Settings) -> int | None:
    return settings.upload_limit_bytes or None


def _cached_models(settings: Settings) -> Path:
    return settings.models_path.parent / "cache/models"


def _output_directory(settings: Settings) -> Path:
    return settings.state_path / "logs"


def _state_lock(settings: Settings) -> Any:
    from ..adapters.processes.state_lock import LocalStateLock

    return LocalStateLock(settings.state_path, settings.adoption_window_s, settings.stop_grace_s)


def _keeper(settings: Settings) -> Any:
    from ..adapters.processes.keeper import LocalKeeper

    return LocalKeeper(settings.state_path)


def _journal_directory(settings: Settings) -> Path:
    return settings.state_path / "processes"


def _identity_file(settings: Settings) -> Path:
    return settings.state_path / "identity.json"


def _needs_minted_login(settings: Settings) -> bool:
    return settings.requires_nats_auth and not settings.nats_jwt


def _dismissal(dismissed: anyio.Event, stop_requested: anyio.Event) -> Callable[[], None]:
    def dismiss() -> None:
        dismissed.set()
        stop_requested.set()

    return dismiss


def _backend_environment(settings: Settings, environment: Mapping[str, str]) -> dict[str, str]:
    return backend_environment(environment, token=settings.registration_token, allowed=settings.backend_env)


class CapabilityOf:
    """The capability of a reading, with the operator's overrides; the override file is read once."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._forced = environment.get(_FORCED_CAPABILITY)
        path = Path(environment.get(_CAPABILITY_FILE) or _DEFAULT_CAPABILITY_FILE)
        self._said = path.read_text(errors="replace") if path.is_file() else None

    def __call__(self, hardware: Hardware) -> str:
        return self.trace(hardware).capability

    def trace(self, hardware: Hardware) -> capabilities.Detection:
        """The capability, and how it comes about."""
        return capabilities.trace(hardware, self._forced, self._said)


class Container(containers.DeclarativeContainer):
    """Everything one worker is made of; build it inside the event loop, through `build_worker`.

    The capability is detected from the hardware before the other parts are built.
    """

    __self__ = providers.Self()
    settings = providers.Dependency(instance_of=Settings)
    environment: providers.Dependency[Mapping[str, str]] = providers.Dependency()
    detection = providers.Dependency(instance_of=capabilities.Detection)

    clock = providers.Singleton(_system_clock)
    filesystem = providers.Singleton(_local_filesystem)
    network = providers.Singleton(_local_network)
    processes = providers.Singleton(_local_processes)
    hardware = providers.Singleton(_local_hardware, environment)
    oom_kills = providers.Singleton(_oom_kills)
    output_files = providers.Singleton(_output_files, settings)
    backend_client = providers.Singleton(_grpc_client, settings)
    frontend = providers.Singleton(_http_frontend, settings)
    artifact_parts = providers.Singleton(ArtifactParts, settings, environment)
    artifacts = providers.Singleton(ArtifactParts.readers, artifact_parts)
    gallery_source = providers.Singleton(_gallery_documents)
    object_store = providers.Singleton(make_object_store, settings)
    ranged_files = providers.Singleton(_ranged_files)
    open_files = providers.Singleton(_open_files)
    broker = providers.Singleton(_memory_broker)
    bus = providers.Selector(
        settings.provided.bus.value,
        nats=providers.Singleton(_nats_bus, settings),
        memory=providers.Singleton(_memory_bus, broker),
    )

    spread = providers.Object(_spread)
    capability_of = providers.Singleton(CapabilityOf, environment)
    stop_requested = providers.Singleton(anyio.Event)
    dismissed = providers.Singleton(anyio.Event)
    state_lock = providers.Singleton(_state_lock, settings)
    keeper = providers.Singleton(_keeper, settings)
    custody = providers.Singleton(Custody, lock=state_lock, keeper=keeper)
    journal = providers.Singleton(
        ProcessJournal, filesystem, providers.Callable(_journal_directory, settings)
    )
    identities = providers.Singleton(IdentityStore, filesystem, providers.Callable(_identity_file, settings))
    prefetched = providers.Singleton(PrefetchedFiles, filesystem, settings.provided.models_path)
    files = providers.Singleton(
        ReceiveFiles,
        filesystem=filesystem,
        roots=providers.Callable(_roots, settings),
        max_upload_bytes=providers.Callable(_upload_limit, settings),
        prefetched=prefetched,
    )
    sweeper = providers.Singleton(
        SweepFiles,
        filesystem=filesystem,
        roots=providers.Callable(_roots, settings),
        clock=clock,
        open_files=open_files,
        keep_s=settings.provided.staging_keep_s,
        limit_bytes=settings.provided.staging_limit_bytes,
        partial_s=settings.provided.staging_keep_s,
    )
    leftovers = providers.Singleton(
        SweepInstalls, filesystem=filesystem, backends_path=settings.provided.backends_path
    )
    installed = providers.Singleton(
        InstalledBackends,
        filesystem=filesystem,
        backends_path=settings.provided.backends_path,
        system_path=settings.provided.backends_system_path,
        capability=detection.provided.capability,
    )
    backend_indexes = providers.Singleton(
        ReadGalleries,
        documents=gallery_source,
        filesystem=filesystem,
        trusted_root=settings.provided.backends_path,
        copies=providers.Callable(_gallery_copies, settings.provided.backends_path),
        hugging_face=providers.Callable(hugging_face_endpoint, environment),
    )
    galleries = providers.Singleton(GalleryIndexes, backend_indexes, detection.provided.capability)
    attachments = providers.Singleton(ArtifactParts.attachments, artifact_parts)
    signatures = providers.Singleton(integrity_parts.signatures, settings.provided.sigstore_trusted_root)
    integrity = providers.Singleton(
        Integrity, attachments, signatures, settings.provided.require_backend_integrity
    )
    installer = providers.Singleton(
        InstallBackends,
        filesystem=filesystem,
        installed=installed,
        artifacts=artifacts,
        galleries=galleries,
        integrity=integrity,
        clock=clock,
    )
    logs = providers.Singleton(BackendLogs)
    ports = providers.Singleton(PortPool, settings.provided.grpc_ports)
    output = providers.Singleton(
        CollectOutput,
        files=output_files,
        logs=logs,
        clock=clock,
        directory=providers.Callable(_output_directory, settings),
    )
    deaths = providers.Singleton(Deaths, clock=clock, oom=oom_kills)
    starter = providers.Singleton(
        BackendStarter,
        processes=processes,
        client=backend_client,
        filesystem=filesystem,
        deaths=deaths,
        output=output,
        environment=providers.Callable(_backend_environment, settings, environment),
        output_directory=providers.Callable(_output_directory, settings),
        ready_timeout_s=settings.provided.ready_timeout_s,
        next_mark=custody.provided.next_mark,
    )
    supervisor = providers.Singleton(
        Supervisor,
        starter=starter,
        client=backend_client,
        filesystem=filesystem,
        network=network,
        ports=ports,
        ladder=providers.Factory(StopLadder, grace_s=settings.provided.stop_grace_s),
        journal=journal,
    )
    recovery = providers.Singleton(
        RecoverBackends,
        custody=custody,
        journal=journal,
        processes=processes,
        client=backend_client,
        supervisor=supervisor,
        ports=ports,
    )
    enrolment = providers.Singleton(
        Enrolment,
        frontend=frontend,
        hardware=hardware,
        filesystem=filesystem,
        profile=providers.Callable(_profile, settings),
        capability=capability_of,
        busy=supervisor.provided.busy,
        identities=identities,
        frontend_url=settings.provided.register_to,
        attempts=providers.Callable(_registration_attempts, settings),
        spread=spread,
    )
    resumption = providers.Singleton(
        ResumeNode,
        enrolment=enrolment,
        identities=identities,
        frontend=frontend,
        clock=clock,
        needs_credentials=providers.Callable(_needs_minted_login, settings),
    )
    heartbeats = providers.Singleton(Heartbeats, enrolment, interval_s=settings.provided.heartbeat_interval_s)
    login = providers.Singleton(
        BusLogin,
        bus=bus,
        enrolment=enrolment,
        clock=clock,
        fixed=providers.Callable(_fixed_login, settings),
        required=settings.provided.requires_nats_auth,
    )
    deletion = providers.Singleton(
        DeleteBackend,
        filesystem=filesystem,
        installed=installed,
        supervisor=supervisor,
        locks=installer.provided.locks,
    )
    replacement = providers.Singleton(
        ReplaceBackend, installer=installer, installed=installed, supervisor=supervisor
    )
    downloads = providers.Singleton(model_parts.downloads)
    archives = providers.Singleton(model_parts.archives)
    prefetch = providers.Callable(model_parts.prefetcher, __self__)
    explanation = providers.Callable(model_parts.explanation, __self__)
    backend_commands = providers.Singleton(
        BackendCommands,
        installer=installer,
        installed=installed,
        supervisor=supervisor,
        deletion=deletion,
        replacement=replacement,
        deaths=deaths,
        addresses=settings.provided.addresses,
        galleries=settings.provided.backend_galleries,
        bus=bus,
    )
    model_files = providers.Singleton(
        DeleteModel,
        filesystem=filesystem,
        models_path=settings.provided.models_path,
        cached=providers.Callable(_cached_models, settings),
    )
    model_commands = providers.Singleton(
        ModelCommands,
        supervisor=supervisor,
        addresses=settings.provided.addresses,
        files=model_files,
    )
    storage = providers.Singleton(
        build_storage,
        settings,
        object_store,
        filesystem,
        ranged_files,
        open_files,
        clock,
        providers.Callable(_roots, settings),
        supervisor,
    )
    readiness = providers.Singleton(
        Readiness,
        bus=bus,
        filesystem=filesystem,
        models_path=settings.provided.models_path,
        parts=providers.Callable(_parts_with_worries, enrolment, heartbeats, login, storage, deaths),
    )
    description = providers.Singleton(
        DescribeNode,
        name=settings.provided.node_name,
        supervisor=supervisor,
        deaths=deaths,
        enrolment=enrolment,
        hardware=hardware,
        readiness=readiness,
    )
    file_app = providers.Singleton(_file_app, files, logs, readiness, description, settings)
    http = providers.Singleton(_http_server, file_app.provider, settings)
    control = providers.Singleton(
        ControlPlane,
        bus=bus,
        backends=backend_commands,
        models=model_commands,
        addresses=settings.provided.addresses,
        request_stop=providers.Callable(_dismissal, dismissed, stop_requested),
        storage=storage,
    )
    worker = providers.Singleton(
        Worker,
        bus=bus,
        frontend=frontend,
        enrolment=enrolment,
        login=login,
        heartbeats=heartbeats,
        control=control,
        supervisor=supervisor,
        files=files,
        sweeper=sweeper,
        leftovers=leftovers,
        http=http,
        custody=custody,
        recovery=recovery,
        resumption=resumption,
        stop_requested=stop_requested,
        prefetch=prefetch,
        storage=storage,
        dismissed=dismissed,
        keep_backends=settings.provided.keep_backends,
    )


async def settle_capability(container: Container) -> None:
    """Read the hardware and settle what this node can run; the parts that need it come after."""
    detection = container.capability_of().trace(await container.hardware().read())
    container.detection.override(providers.Object(detection))


async def build_worker(container: Container) -> Worker:
    """Settle what this node can run, and assemble the worker."""
    await settle_capability(container)
    worker: Worker = container.worker()
    return worker
