"""Model files on their way to a real worker process: whole directories, and uploads that break off."""

import hashlib
import random
import signal
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
import httpx
import pytest
from anyio import BrokenResourceError, to_thread

from localai_worker.app.simulator.local_cluster import TOKEN, LocalCluster, WorkerProcess
from localai_worker.app.simulator.model_options import ModelSpec, ModelStaging
from localai_worker.app.simulator.staging import HttpStager
from localai_worker.domain.errors import WorkerError
from tests.system.nodes import Node, log_of, start_node, until

MIB = 1024 * 1024
TRY_AGAIN = b"HTTP/1.1 416"
FILES = {
    "config.json": 200,
    "model.safetensors.index.json": 3000,
    "model-00001-of-00002.safetensors": 3 * MIB,
    "model-00002-of-00002.safetensors": MIB + 7,
    "tokenizer/merges with spaces.txt": 500,
    "tokenizer/ü/日本語.txt": 10,
    "empty.txt": 0,
    "a/b/c/d/e/f/g/deep.bin": 10,
} | {f"experts/{number}.bin": 100 + number for number in range(60)}


@pytest.fixture(scope="module")
async def node(cluster: LocalCluster) -> Node:
    return await start_node(cluster, "staging")


def make_model(models: Path) -> None:
    for name, size in FILES.items():
        path = models / "qwen" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(name).randbytes(size))
    weights = models / "qwen" / "model-00001-of-00002.safetensors"
    # The frontend's own note of the hash, which its walk leaves out.
    weights.with_name(f"{weights.name}.sha256").write_text(hashlib.sha256(weights.read_bytes()).hexdigest())


def files_below(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {
        path.relative_to(directory).as_posix(): (path.read_bytes(), path.stat().st_ino)
        for path in directory.rglob("*")
        if path.is_file() and not path.name.endswith(".sha256")
    }


@pytest.mark.parametrize("generation", ["newer", "seed"])
async def test_a_directory_model_comes_file_by_file_and_once(
    node: Node, tmp_path: Path, generation: str
) -> None:
    """H-92726f763: many small files and deep trees; a seed frontend cannot stage a directory."""
    make_model(tmp_path)
    stager = HttpStager(
        node.cluster.registry.row(node.id).http_address, TOKEN, "newer" if generation == "newer" else "seed"
    )
    options = {"ModelFile": "qwen", "Model": "qwen"}
    spec = ModelSpec(name=f"org/{generation}", backend="tiny", options=options)
    staging = ModelStaging(tmp_path, spec, stager.ensure, directories=generation == "newer")
    there = node.worker.directory / "models" / "org" / generation / "qwen"
    try:
        if generation == "seed":
            with pytest.raises(WorkerError, match="no regular file"):
                await staging.stage()
            for name in FILES:  # what it can do is to stage the files one by one
                await stager.ensure(tmp_path / "qwen" / name, f"models/org/seed/qwen/{name}")
        else:
            told = await staging.stage()
            assert told["ModelFile"] == str(there)
            assert told["ModelPath"] == str(there.parent)
        first = files_below(there)
        assert {name: len(content) for name, (content, _) in first.items()} == FILES
        assert all(content == (tmp_path / "qwen" / name).read_bytes() for name, (content, _) in first.items())
        if generation == "newer":
            await staging.stage()
            assert files_below(there) == first
        listed = await stager.list_dir(f"models/org/{generation}/qwen")
        assert sorted(listed) == sorted(FILES)
    finally:
        await stager.close()


@dataclass
class Content:
    """As many bytes as wanted, that need no disk and repeat nowhere near."""

    size: int
    seed: int

    def __post_init__(self) -> None:
        source = random.Random(self.seed)
        self._blocks = [source.randbytes(MIB) for _ in range(7)]

    def chunk(self, offset: int) -> bytes:
        """Up to 1 MiB from `offset`, to the end of its block."""
        number, within = divmod(offset, MIB)
        mark = number.to_bytes(8, "big")
        block = mark + self._blocks[number % 7][8:]
        return block[within : within + self.size - offset]

    def sha256(self) -> str:
        digest = hashlib.sha256()
        offset = 0
        while offset < self.size:
            chunk = self.chunk(offset)
            digest.update(chunk)
            offset += len(chunk)
        return digest.hexdigest()


@dataclass
class Client:
    """A newer frontend's stager whose connections break where a test wants it."""

    node: Node
    key: str
    content: Content
    sha256: str

    @property
    def address(self) -> str:
        return self.node.cluster.registry.row(self.node.id).http_address

    async def held(self) -> int:
        """Where to go on; 0 where nothing is held, or nobody listens yet."""
        async with httpx.AsyncClient(trust_env=False, verify=False) as http:
            headers = {"authorization": f"Bearer {TOKEN}"}
            try:
                probed = await http.head(f"http://{self.address}/v1/files/{self.key}", headers=headers)
            except httpx.TransportError:
                return 0
        if probed.headers.get("x-target-sha256") != self.sha256:
            return 0
        return int(probed.headers["x-file-size"])

    async def upload(self, until_byte: int, *, then_kill: bool = False) -> bytes:
        """PUT what is missing, up to `until_byte` of the file; the head of the answer, if there is one."""
        offset, size = await self.held(), self.content.size
        host, _, port = self.address.rpartition(":")
        head = (
            f"PUT /v1/files/{self.key} HTTP/1.1\r\nHost: {self.address}\r\nAuthorization: Bearer {TOKEN}\r\n"
            f"Content-Range: bytes {offset}-{size - 1}/{size}\r\nContent-Length: {size - offset}\r\n"
            f"X-Content-SHA256: {self.sha256}\r\n\r\n"
        )
        async with await anyio.connect_tcp(host, int(port)) as stream:
            await stream.send(head.encode())
            try:
                while offset < until_byte:
                    chunk = self.content.chunk(offset)[: until_byte - offset]
                    await stream.send(chunk)
                    offset += len(chunk)
            except BrokenResourceError:
                return TRY_AGAIN  # it was answered while we still sent
            if until_byte == size:
                return await stream.receive()
            if then_kill:
                while not await self.held():
                    await anyio.sleep(0.02)
                self.node.worker.stopping = True
                self.node.worker.process.send_signal(signal.SIGKILL)
                await self.node.worker.process.wait()
        return b""


def is_ready_again(worker: WorkerProcess) -> bool:
    return log_of(worker).count("worker ready") >= 2


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(24 * MIB + 11, id="small"),
        pytest.param(5 << 30, id="5 GiB", marks=[pytest.mark.large, pytest.mark.timeout(1800)]),
    ],
)
async def test_an_upload_that_is_cut_five_times_ends_with_the_right_hash(
    cluster: LocalCluster, size: int
) -> None:
    """H-c22216129, S-K12: each attempt goes on where the worker is, also after it was killed."""
    node = await start_node(cluster, f"cut-{size}")
    content = Content(size, seed=size)
    client = Client(node, "models/big/model.gguf", content, await to_thread.run_sync(content.sha256))
    offsets = [await client.held()]
    for cut in range(1, 6):
        with anyio.fail_after(300):
            while (held := await client.held()) <= offsets[-1]:
                await client.upload(size * cut // 6, then_kill=cut == 3)
                if client.node.worker.process.returncode is not None:
                    worker = await cluster.restart_worker(client.node.worker)
                    client.node = Node(cluster, worker, node.id)
                    await until(partial(is_ready_again, worker))
                await anyio.sleep(0.2)
        offsets.append(held)
    assert offsets == sorted(set(offsets))
    answer = await client.upload(size)
    while answer.startswith(TRY_AGAIN):  # the last broken connection is not let go yet
        await anyio.sleep(0.2)
        answer = await client.upload(size)
    assert answer.startswith(b"HTTP/1.1 200"), answer
    path = client.node.worker.directory / "models" / "big" / "model.gguf"
    with path.open("rb") as stored:
        digest = await to_thread.run_sync(lambda: hashlib.file_digest(stored, "sha256").hexdigest())
    assert digest == client.sha256
    assert sorted(each.name for each in path.parent.iterdir()) == ["model.gguf", "model.gguf.sha256"]
    path.unlink()
