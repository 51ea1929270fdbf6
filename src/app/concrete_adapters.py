"""The concrete adapters around a worker, each imported only when it is built."""

from collections.abc import Callable, Mapping
from typing import Any

from ..domain.backend_logs import BackendLogs
from ..domain.describe_node import DescribeNode
from ..domain.readiness import Readiness
from ..domain.receive_files import ReceiveFiles
from .settings import Settings


def nats_bus(settings: Settings) -> Any:
    from ..adapters.nats.bus import NatsMessageBus
    from ..adapters.nats.tls import TlsFiles

    files = (settings.nats_tls_ca, settings.nats_tls_cert, settings.nats_tls_key)
    tls = TlsFiles(*files) if any(files) else None
    return NatsMessageBus(settings.nats_url, client_name=settings.node_name, tls=tls)


def memory_broker() -> Any:
    from ..adapters.memory.bus import InMemoryBroker

    return InMemoryBroker()


def memory_bus(broker: Any) -> Any:
    from ..adapters.memory.bus import InMemoryMessageBus

    return InMemoryMessageBus(broker)


def http_frontend(settings: Settings) -> Any:
    from ..adapters.frontend.client import HttpFrontendClient

    return HttpFrontendClient(settings.register_to, settings.registration_token)


def grpc_client(settings: Settings) -> Any:
    from ..adapters.grpc.backend_client import GrpcBackendClient

    return GrpcBackendClient(settings.registration_token)


def local_processes() -> Any:
    from ..adapters.processes.local import LocalProcesses

    return LocalProcesses()


def local_filesystem() -> Any:
    from ..adapters.filesystem.local import LocalFileSystem

    return LocalFileSystem()


def local_network() -> Any:
    from ..adapters.network.local import LocalNetwork

    return LocalNetwork()


def local_hardware(environment: Mapping[str, str]) -> Any:
    from ..adapters.hardware.local import LocalHardware

    return LocalHardware(environment=environment)


def oom_kills() -> Any:
    from ..adapters.hardware.oom import KernelOomKills

    return KernelOomKills()


def output_files(settings: Settings) -> Any:
    from ..adapters.processes.outputs import LocalOutputFiles

    return LocalOutputFiles(settings.backend_log_mib * 1024 * 1024)


def system_clock() -> Any:
    from ..adapters.system_clock import SystemClock

    return SystemClock()


def gallery_documents() -> Any:
    from ..adapters.galleries.documents import GalleryDocumentReaders

    return GalleryDocumentReaders(
        {"file://": document_files, "http://": web_documents, "https://": web_documents}
    )


def document_files() -> Any:
    from ..adapters.galleries.files import FileDocuments

    return FileDocuments()


def web_documents() -> Any:
    from ..adapters.galleries.http import HttpDocuments

    return HttpDocuments()


def ranged_files() -> Any:
    from ..adapters.filesystem.ranged_files import LocalRangedFiles

    return LocalRangedFiles()


def open_files() -> Any:
    from ..adapters.processes.open_files import LocalOpenFiles

    return LocalOpenFiles()


def file_app(
    files: ReceiveFiles, logs: BackendLogs, readiness: Readiness, node: DescribeNode, settings: Settings
) -> Any:
    from ..adapters.http_server.routes import node_routes

    return node_routes(files, logs, readiness, settings.registration_token, node)


def http_server(make_app: Callable[[], Any], settings: Settings) -> Any:
    from ..adapters.http_server.lazy import LazyApplication
    from ..adapters.http_server.serve import HttpServer

    bind = settings.addresses.http_bind
    return HttpServer(LazyApplication(make_app), bind.host, bind.port)


def state_lock(settings: Settings) -> Any:
    from ..adapters.processes.state_lock import LocalStateLock

    return LocalStateLock(settings.state_path, settings.adoption_window_s, settings.stop_grace_s)


def keeper(settings: Settings) -> Any:
    from ..adapters.processes.keeper import LocalKeeper

    return LocalKeeper(settings.state_path)
