"""Every message class with a hypothesis strategy for its values."""

from hypothesis import strategies as st

from localai_worker.domain.messages import backend, backend_list, backend_progress, files, model
from localai_worker.domain.messages.node_status import LoadedModel, NodeError
from localai_worker.domain.messages.registration import Heartbeat, RegisterReply, RegisterRequest
from localai_worker.domain.messages.wire import WireObject

# Escapes, Go's own escapes, characters outside the basic plane, and whatever else hypothesis finds.
TEXT = st.one_of(st.text(), st.text(alphabet='<>&"\\\u2028\u2029\x00\x1f\x7f\n\u00e9\U0001f600#'))
SOME_TEXT = st.text(min_size=1)
TEXTS = st.lists(TEXT).map(tuple)
BOOL = st.booleans()
INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
SIZE = st.integers(0, 2**64 - 1)
KNOWN_SIZE = st.none() | SIZE

ROWS = st.lists(
    st.builds(
        backend_list.NodeBackendInfo,
        name=TEXT, is_system=BOOL, is_meta=BOOL, installed_at=TEXT, gallery_url=TEXT, version=TEXT, uri=TEXT,
        digest=TEXT,
    ),
    max_size=3,
).map(tuple)  # fmt: skip

RUNNING = st.lists(
    st.builds(model.RunningModel, model_id=TEXT, replica_index=INT64, address=TEXT), max_size=3
).map(tuple)

MESSAGES: dict[type[WireObject], st.SearchStrategy[WireObject]] = {
    backend.BackendInstallRequest: st.builds(
        backend.BackendInstallRequest,
        backend=TEXT, model_id=TEXT, backend_galleries=TEXT, uri=TEXT, name=TEXT, alias=TEXT,
        replica_index=INT32, force=BOOL, op_id=TEXT,
    ),
    backend.BackendInstallReply: st.builds(
        backend.BackendInstallReply, success=BOOL, address=TEXT, error=TEXT
    ),
    backend.BackendUpgradeRequest: st.builds(
        backend.BackendUpgradeRequest,
        backend=TEXT, backend_galleries=TEXT, uri=TEXT, name=TEXT, alias=TEXT, replica_index=INT32,
        op_id=TEXT,
    ),
    backend.BackendUpgradeReply: st.builds(
        backend.BackendUpgradeReply,
        success=BOOL, error=TEXT, stopped_process_keys=TEXTS, reports_stopped_processes=BOOL,
    ),
    backend.BackendDeleteRequest: st.builds(backend.BackendDeleteRequest, backend=TEXT),
    backend.BackendDeleteReply: st.builds(
        backend.BackendDeleteReply,
        success=BOOL, error=TEXT, stopped_process_keys=TEXTS, reports_stopped_processes=BOOL,
    ),
    backend.BackendStopRequest: st.builds(backend.BackendStopRequest, backend=TEXT, force=BOOL),
    backend_list.BackendListReply: st.builds(backend_list.BackendListReply, backends=ROWS, error=TEXT),
    backend_progress.BackendInstallProgress: st.builds(
        backend_progress.BackendInstallProgress,
        op_id=TEXT, node_id=TEXT, backend=TEXT, file_name=TEXT, current=TEXT, total=TEXT,
        percentage=st.floats(allow_nan=False, allow_infinity=False),
        phase=st.sampled_from(backend_progress.InstallPhase) | TEXT,
    ),
    model.ModelUnloadRequest: st.builds(model.ModelUnloadRequest, model_name=TEXT, address=TEXT),
    model.ModelUnloadReply: st.builds(model.ModelUnloadReply, success=BOOL, error=TEXT),
    model.ModelDeleteRequest: st.builds(model.ModelDeleteRequest, model_name=TEXT),
    model.ModelDeleteReply: st.builds(model.ModelDeleteReply, success=BOOL, error=TEXT),
    model.ModelStopRequest: st.builds(
        model.ModelStopRequest,
        model_name=TEXT, process_key=TEXT, expected_address=TEXT, force=BOOL, config_revision=TEXT,
    ),
    model.ModelStopReply: st.builds(
        model.ModelStopReply,
        matched=BOOL, freed=BOOL, terminated=BOOL, process_key=TEXT, address=TEXT, error=TEXT,
    ),
    model.ModelsRunningReply: st.builds(model.ModelsRunningReply, models=RUNNING, error=TEXT),
    files.FilesEnsureRequest: st.builds(files.FilesEnsureRequest, key=TEXT),
    files.FilesEnsureReply: st.builds(files.FilesEnsureReply, local_path=TEXT)
    | st.builds(files.FilesEnsureReply, error=TEXT),
    files.FilesStageRequest: st.builds(files.FilesStageRequest, local_path=TEXT, key=TEXT),
    files.FilesStageReply: st.builds(files.FilesStageReply, key=TEXT)
    | st.builds(files.FilesStageReply, error=TEXT),
    files.FilesTempReply: st.builds(files.FilesTempReply, local_path=TEXT)
    | st.builds(files.FilesTempReply, error=TEXT),
    files.FilesListdirRequest: st.builds(files.FilesListdirRequest, key_prefix=TEXT),
    files.FilesListdirReply: st.builds(files.FilesListdirReply, files=TEXTS)
    | st.builds(files.FilesListdirReply, error=TEXT),
    RegisterRequest: st.builds(
        RegisterRequest,
        name=TEXT, address=TEXT, http_address=TEXT, total_vram=SIZE, available_vram=SIZE, gpu_vendor=TEXT,
        token=TEXT, node_type=TEXT, total_ram=KNOWN_SIZE, available_ram=KNOWN_SIZE, total_disk=KNOWN_SIZE,
        available_disk=KNOWN_SIZE, gpu_compute_capability=st.none() | TEXT, capability=st.none() | TEXT,
        max_replicas_per_model=st.none() | INT64, vram_budget=TEXT, labels=st.dictionaries(TEXT, TEXT),
    ),
    RegisterReply: st.builds(
        RegisterReply,
        id=SOME_TEXT, name=TEXT, node_type=TEXT, status=TEXT, created_at=TEXT, api_token=TEXT, nats_jwt=TEXT,
        nats_user_seed=TEXT,
    ),
    Heartbeat: st.builds(
        Heartbeat,
        available_vram=KNOWN_SIZE, total_vram=KNOWN_SIZE, available_ram=KNOWN_SIZE,
        gpu_vendor=st.none() | TEXT, total_disk=KNOWN_SIZE, available_disk=KNOWN_SIZE,
    ),
    LoadedModel: st.builds(
        LoadedModel,
        id=TEXT, node_id=TEXT, model_name=TEXT, replica_index=st.none() | INT64, address=TEXT, state=TEXT,
        in_flight=INT64, last_used=TEXT, loading_by=TEXT, backend_type=TEXT, created_at=TEXT, updated_at=TEXT,
    ),
    NodeError: st.builds(NodeError, message=TEXT)
    | st.builds(NodeError, message=TEXT, code=INT64, type=TEXT),
}  # fmt: skip

# The bodies whose reading has rules of its own: a heartbeat refuses nothing, an answer needs an id.
LENIENT: frozenset[type[WireObject]] = frozenset({Heartbeat})
DEMANDING: frozenset[type[WireObject]] = frozenset({RegisterReply, NodeError})
EVERY_KIND = sorted(MESSAGES, key=lambda kind: kind.__name__)
EVERY_STRICT_KIND = [kind for kind in EVERY_KIND if kind not in LENIENT]
