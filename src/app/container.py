"""The container: how the parts of one worker hang together.

Concrete adapters are named in `concrete_adapters` and in the modules for artifacts, storage, models and
integrity that build several at once; what a part takes from the settings is in `part_settings`.

Every part can be replaced by overriding its provider; `memory_container.in_memory` replaces all that touch
the outside. Which bus is used is a setting (`bus=memory`), no code.
"""

from collections.abc import Mapping

import anyio

from ..domain import capability as capabilities
from ..domain.allocate_ports import PortPool
from ..domain.backend_logs import BackendLogs
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
from ..domain.prefetch_progress import PrefetchProgress
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
from . import concrete_adapters as concrete
from . import integrity_parts, model_parts
from . import part_settings as derived
from .artifact_parts import ArtifactParts
from .capability_of import CapabilityOf
from .commands.backend import BackendCommands
from .commands.model import ModelCommands
from .control_plane import ControlPlane
from .settings import Settings
from .slim_injector import containers, providers
from .storage import build_storage, make_object_store
from .worker import Worker


class Container(containers.DeclarativeContainer):
    """Everything one worker is made of; build it inside the event loop, through `build_worker`.

    The capability is detected from the hardware before the other parts are built.
    """

    __self__ = providers.Self()
    settings = providers.Dependency(instance_of=Settings)
    environment: providers.Dependency[Mapping[str, str]] = providers.Dependency()
    detection = providers.Dependency(instance_of=capabilities.Detection)

    clock = providers.Singleton(concrete.system_clock)
    filesystem = providers.Singleton(concrete.local_filesystem)
    network = providers.Singleton(concrete.local_network)
    processes = providers.Singleton(concrete.local_processes)
    hardware = providers.Singleton(concrete.local_hardware, environment)
    oom_kills = providers.Singleton(concrete.oom_kills)
    output_files = providers.Singleton(concrete.output_files, settings)
    backend_client = providers.Singleton(concrete.grpc_client, settings)
    frontend = providers.Singleton(concrete.http_frontend, settings)
    artifact_parts = providers.Singleton(ArtifactParts, settings, environment)
    artifacts = providers.Singleton(ArtifactParts.readers, artifact_parts)
    gallery_source = providers.Singleton(concrete.gallery_documents)
    object_store = providers.Singleton(make_object_store, settings)
    ranged_files = providers.Singleton(concrete.ranged_files)
    open_files = providers.Singleton(concrete.open_files)
    broker = providers.Singleton(concrete.memory_broker)
    bus = providers.Selector(
        settings.provided.bus.value,
        nats=providers.Singleton(concrete.nats_bus, settings),
        memory=providers.Singleton(concrete.memory_bus, broker),
    )

    spread = providers.Object(derived.spread)
    capability_of = providers.Singleton(CapabilityOf, environment)
    stop_requested = providers.Singleton(anyio.Event)
    dismissed = providers.Singleton(anyio.Event)
    state_lock = providers.Singleton(concrete.state_lock, settings)
    keeper = providers.Singleton(concrete.keeper, settings)
    custody = providers.Singleton(Custody, lock=state_lock, keeper=keeper)
    journal = providers.Singleton(
        ProcessJournal, filesystem, providers.Callable(derived.journal_directory, settings)
    )
    identities = providers.Singleton(
        IdentityStore, filesystem, providers.Callable(derived.identity_file, settings)
    )
    prefetch_progress = providers.Singleton(PrefetchProgress)
    prefetched = providers.Singleton(PrefetchedFiles, filesystem, settings.provided.models_path)
    files = providers.Singleton(
        ReceiveFiles,
        filesystem=filesystem,
        roots=providers.Callable(derived.roots, settings),
        max_upload_bytes=providers.Callable(derived.upload_limit, settings),
        prefetched=prefetched,
    )
    sweeper = providers.Singleton(
        SweepFiles,
        filesystem=filesystem,
        roots=providers.Callable(derived.roots, settings),
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
        copies=providers.Callable(derived.gallery_copies, settings.provided.backends_path),
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
        directory=providers.Callable(derived.output_directory, settings),
    )
    deaths = providers.Singleton(Deaths, clock=clock, oom=oom_kills)
    starter = providers.Singleton(
        BackendStarter,
        processes=processes,
        client=backend_client,
        filesystem=filesystem,
        deaths=deaths,
        output=output,
        environment=providers.Callable(derived.backend_environment, settings, environment),
        output_directory=providers.Callable(derived.output_directory, settings),
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
        profile=providers.Callable(derived.profile, settings),
        capability=capability_of,
        busy=supervisor.provided.busy,
        identities=identities,
        frontend_url=settings.provided.register_to,
        attempts=providers.Callable(derived.registration_attempts, settings),
        spread=spread,
    )
    resumption = providers.Singleton(
        ResumeNode,
        enrolment=enrolment,
        identities=identities,
        frontend=frontend,
        clock=clock,
        needs_credentials=providers.Callable(derived.needs_minted_login, settings),
    )
    heartbeats = providers.Singleton(Heartbeats, enrolment, interval_s=settings.provided.heartbeat_interval_s)
    login = providers.Singleton(
        BusLogin,
        bus=bus,
        enrolment=enrolment,
        clock=clock,
        fixed=providers.Callable(derived.fixed_login, settings),
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
    archives = providers.Singleton(model_parts.archives, settings)
    model_hub = providers.Singleton(model_parts.model_hub, environment)
    file_locks = providers.Singleton(model_parts.file_locks)
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
        cached=providers.Callable(derived.cached_models, settings),
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
        providers.Callable(derived.roots, settings),
        supervisor,
    )
    readiness = providers.Singleton(
        Readiness,
        bus=bus,
        filesystem=filesystem,
        models_path=settings.provided.models_path,
        parts=providers.Callable(
            derived.parts_with_worries, enrolment, heartbeats, login, storage, deaths, prefetch_progress
        ),
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
    file_app = providers.Singleton(concrete.file_app, files, logs, readiness, description, settings)
    http = providers.Singleton(concrete.http_server, file_app.provider, settings)
    control = providers.Singleton(
        ControlPlane,
        bus=bus,
        backends=backend_commands,
        models=model_commands,
        addresses=settings.provided.addresses,
        request_stop=providers.Callable(derived.dismissal, dismissed, stop_requested),
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
