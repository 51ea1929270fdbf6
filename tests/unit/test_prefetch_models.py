"""Prefetching models, over everything in memory."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import anyio
import pytest

from localai_worker.adapters.memory.machine import InMemoryMachine
from localai_worker.adapters.memory.network import InMemoryNetwork
from localai_worker.app.container import Container, build_worker
from localai_worker.app.memory_container import in_memory
from localai_worker.app.testing import memory_settings
from localai_worker.app.virtual_time import VIRTUAL_TIME, AnyioBackend
from localai_worker.domain.delete_model import DeleteModel
from localai_worker.domain.errors import ArtifactUnavailable
from localai_worker.domain.galleries import Gallery
from localai_worker.domain.ollama import ollama_blob, ollama_manifest_url
from localai_worker.domain.ports.filesystem import RootedPath
from localai_worker.domain.public_hosts import PrivateAddress, require_public
from tests.prefetching import FILE, MODELS, OTHER, SITE, Node, model
from tests.snapshots import OURS


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


@pytest.fixture
def node() -> Node:
    return Node()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize("ids", [(), ("",), (" ", "\t")])
async def test_without_ids_nothing_happens_at_all(
    node: Node, caplog: pytest.LogCaptureFixture, ids: tuple[str, ...]
) -> None:
    """S-W34, M-1.3."""
    node.service.galleries = ()
    with caplog.at_level(logging.DEBUG):
        assert await node.prefetch(*ids) == []
    assert caplog.records == []


async def test_ids_are_trimmed_and_installed_in_their_order(node: Node) -> None:
    """S-W34, M-1.3."""
    node.list_models(model("a", "https://files.example/a", "a"), model("b", "https://files.example/b", "b"))
    node.web.files = {"https://files.example/a": b"a", "https://files.example/b": b"b"}
    await node.prefetch(" b ", "", "a")
    assert [url[-1] for url, _ in node.web.asked] == ["b", "a"]


async def test_without_galleries_every_model_is_skipped_with_a_warning(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """S-W34, M-1.4."""
    node.service.galleries = ()
    assert await node.prefetch("a", "b") == []
    assert warnings(caplog) == ["models not prefetched, there are no galleries (LOCALAI_GALLERIES): a, b"]


async def test_one_failure_does_not_stop_the_others(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    """S-W34, M-1.6, M-2.6."""
    node.list_models(model("broken", "https://files.example/missing"), model("good"))
    assert await node.prefetch("broken", "unheard-of", "good") == [
        "._gallery_good.yaml",
        "good.yaml",
        "m.gguf",
    ]
    assert [text.split(" error=")[0] for text in warnings(caplog)] == [
        "model not prefetched: model=broken",
        "model not prefetched: model=unheard-of",
    ]
    assert 'no model found with name "unheard-of"' in warnings(caplog)[1]


async def test_a_bug_costs_one_model_and_not_the_node(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    """M-1.6."""
    node.list_models(model("a", filename="a"), model("good"))
    put, real = node.filesystem.open_incoming, node.filesystem.open_incoming

    async def fail_once(place: Any, *, mode: int = 0o644) -> Any:
        if place.relative.name == "a":
            raise ZeroDivisionError
        return await real(place, mode=mode)

    node.filesystem.open_incoming = fail_once  # type: ignore[method-assign]
    assert "good.yaml" in await node.prefetch("a", "good")
    assert any(record.exc_info for record in caplog.records)
    node.filesystem.open_incoming = put  # type: ignore[method-assign]


async def test_a_gallery_that_cannot_be_read_holds_up_only_its_own_models(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """M-2.3, M-8.2: upstream installs nothing at all then."""
    node.service.galleries = [Gallery("dead", "https://dead.example/x"), SITE]
    node.list_models(model("good"))
    assert "good.yaml" in await node.prefetch("good", "dead@lost")
    assert "failed to read gallery elements" in warnings(caplog)[-1]


@pytest.mark.parametrize("name", ["org/Model", "ORG__MODEL", "site@org/model", "SITE@Org__Model"])
async def test_names_are_found_as_backends_are_and_spelled_as_the_entry(node: Node, name: str) -> None:
    """M-2.5, M-2.7."""
    node.list_models(model("Org__Model"))
    assert "Org__Model.yaml" in await node.prefetch(name)


async def test_a_qualified_name_means_that_gallery_alone(node: Node) -> None:
    """M-2.5."""
    node.list_models(model("a", overrides={"backend": "from-site"}))
    node.list_models(model("a", overrides={"backend": "from-other"}), gallery=OTHER)
    await node.prefetch("a")
    assert node.config("a")["backend"] == "from-site"
    await node.prefetch("other@a")
    assert node.config("a")["backend"] == "from-other"


async def test_an_entry_builds_on_the_document_its_url_leads_to(node: Node) -> None:
    """M-3.1."""
    node.list_models(
        {"name": "a", "url": "https://docs.example/a.yaml", "config_file": {"backend": "ignored"}}
    )
    node.documents.indexes["https://docs.example/a.yaml"] = json.dumps(
        {
            "name": "doc",
            "config_file": '{"backend": "whisper"}',
            "prompt_templates": [{"name": "t", "content": "c"}],
        }
    ).encode()
    assert await node.prefetch("a") == ["._gallery_a.yaml", "a.yaml", "t.tmpl"]
    assert node.config("a") == {"backend": "whisper", "name": "a"}


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("http://localhost/x", ()),
        ("http://LOCALHOST./x", ()),
        ("http://printer.local/x", ("93.184.216.34",)),
        ("http://metadata.google.internal/x", ("93.184.216.34",)),
        ("http://instance-data/x", ("93.184.216.34",)),
        ("http://127.0.0.1/x", ()),
        ("http://[::1]/x", ()),
        ("http://[::ffff:10.0.0.1]/x", ()),
        ("http://169.254.169.254/latest", ()),
        ("http://0.0.0.0/x", ()),
        ("http://inner.example/x", ("10.1.2.3",)),
        ("http://both.example/x", ("93.184.216.34", "192.168.0.1")),
        ("http://linklocal.example/x", ("fe80::1",)),
        ("http://unknown.example/x", ()),
        ("http:///x", ()),
        ("http://[::1/x", ()),
        ("http://user:secret@127.0.0.1/x", ()),
    ],
)
async def test_a_gallery_cannot_send_the_worker_into_a_private_network(
    url: str, addresses: tuple[str, ...]
) -> None:
    """M-3.2."""
    names = ("inner", "both", "linklocal", "unknown")
    table = {f"{name}.example": addresses for name in names} | dict.fromkeys(("printer.local",), addresses)
    with pytest.raises(PrivateAddress) as caught:
        await require_public(url, InMemoryNetwork(InMemoryMachine(), names=table))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["https://docs.example/x", "http://93.184.216.34/x", "file:///srv/x", "github:o/r/x"]
)
async def test_public_addresses_and_other_schemes_pass(node: Node, url: str) -> None:
    """M-3.2."""
    await require_public(url, node.network)


async def test_a_document_in_a_private_network_is_not_fetched(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """M-3.2."""
    node.list_models({"name": "a", "url": "http://10.0.0.1/a.yaml"})
    assert await node.prefetch("a") == []
    assert "10.0.0.1, a private address" in warnings(caplog)[0]


async def test_a_file_without_hash_that_is_there_is_kept_unseen(node: Node) -> None:
    """M-4.2.2, S-W34."""
    node.list_models(model("a"))
    node.filesystem.put(MODELS / "m.gguf", b"whatever")
    await node.prefetch("a")
    assert node.filesystem.get(MODELS / "m.gguf") == b"whatever"
    assert node.web.asked == []


async def test_a_file_with_another_hash_is_replaced_and_never_missing(node: Node) -> None:
    """M-4.2.3, M-4.2.2: upstream deletes it first."""
    right = hashlib.sha256(b"weights").hexdigest()
    node.list_models(model("a", files=[{"filename": "m.gguf", "uri": FILE, "sha256": right.upper()}]))
    node.filesystem.put(MODELS / "m.gguf", b"old")
    node.web.offline = True
    await node.prefetch("a")
    assert node.filesystem.get(MODELS / "m.gguf") == b"old"
    node.web.offline = False
    await node.prefetch("a")
    assert node.filesystem.get(MODELS / "m.gguf") == b"weights"


async def test_a_failure_stops_before_the_configuration(node: Node) -> None:
    """M-4.1.1: earlier files stay, later ones are not written."""
    files = [{"filename": "m.gguf", "uri": FILE}, {"filename": "n", "uri": "https://files.example/missing"}]
    node.list_models(model("a", files=files))
    assert await node.prefetch("a") == ["m.gguf"]


async def test_an_archive_is_unpacked_beside_itself_once(node: Node) -> None:
    """M-4.2.8."""
    uri = "https://files.example/voices.zip"
    node.web.files[uri] = json.dumps({"voices/a.bin": "a"}).encode()
    node.list_models(model("a", uri, "sub/voices.zip"))
    assert "sub/voices/a.bin" in await node.prefetch("a")
    node.filesystem.put(MODELS / "sub/voices/a.bin", b"mine")
    await node.prefetch("a")
    assert node.filesystem.get(MODELS / "sub/voices/a.bin") == b"mine"


async def test_an_archive_that_could_not_be_unpacked_is_unpacked_at_the_next_start(node: Node) -> None:
    """M-4.2.8: upstream never looks at it again; it is not fetched again either."""
    uri = "https://files.example/voices.zip"
    content = json.dumps({"voices/a.bin": "a" * 1000}).encode()
    node.web.files[uri] = content
    node.list_models(model("a", uri, "sub/voices.zip"))
    node.filesystem.capacity_bytes = len(content) + 500
    assert "a.yaml" not in await node.prefetch("a")
    assert node.filesystem.get(MODELS / "sub/voices.zip") == content
    node.filesystem.capacity_bytes = None
    assert await node.prefetch("a") == ["._gallery_a.yaml", "a.yaml", "sub/voices/a.bin", "sub/voices.zip"]
    assert len(node.web.asked) == 1


async def test_an_archive_that_could_not_be_fetched_leaves_nothing(node: Node) -> None:
    """M-4.1.1."""
    node.list_models(model("a", "https://files.example/missing.zip", "voices.zip"))
    assert await node.prefetch("a") == []


async def test_an_archive_that_was_put_there_by_hand_is_left_as_it_is(node: Node) -> None:
    """M-4.2.8."""
    node.list_models(model("a", "https://files.example/voices.zip", "voices.zip"))
    node.filesystem.put(MODELS / "voices.zip", json.dumps({"a.bin": "a"}).encode())
    assert await node.prefetch("a") == ["._gallery_a.yaml", "a.yaml", "voices.zip"]


@pytest.mark.parametrize("uri", ["oci://quay.io/x/y:1", "https://files.example/voices.zip"])
async def test_nothing_is_made_behind_a_link_that_leads_out(node: Node, uri: str) -> None:
    """M-4.2.1: not even a directory."""
    node.artifacts.trees[uri] = {"weights.bin": b"w"}
    node.web.files[uri] = b"{}"
    await node.filesystem.make_directory(Path("/elsewhere"))
    node.filesystem.link(MODELS / "link", Path("/elsewhere"))
    node.list_models(model("a", uri, "link/deep/voices.zip"))
    await node.prefetch("a")
    assert await node.filesystem.list_directory(Path("/elsewhere")) == ()


@pytest.mark.parametrize("uri", ["oci://quay.io/x/y:1", "quay.io/x/y:1", "ocifile:///images/y.tar"])
async def test_an_image_is_unpacked_into_a_directory_of_the_files_name(node: Node, uri: str) -> None:
    """M-4.3.5, M-4.3.6, M-8.6: upstream unpacks it over the models directory."""
    node.artifacts.trees[uri] = {"weights.bin": b"w"}
    node.list_models(model("a", uri, "pack.gguf"))
    assert await node.prefetch("a") == ["._gallery_a.yaml", "a.yaml", "pack.gguf/weights.bin"]


async def test_an_image_that_is_cut_short_leaves_nothing(node: Node) -> None:
    uri = "oci://quay.io/x/y:1"
    node.artifacts.trees[uri] = {"weights.bin": b"w"}
    node.artifacts.delay_s = 10
    node.list_models(model("a", uri, "pack"))
    with anyio.move_on_after(5):
        await node.prefetch("a")
    assert node.files == []


async def test_a_model_of_ollama_comes_with_its_hash(node: Node) -> None:
    """G-2.5.4, M-4.3.7."""
    digest = hashlib.sha256(b"weights").hexdigest()
    base = "https://registry.ollama.ai/v2/library/gemma"
    layers = [
        {"mediaType": "application/vnd.ollama.image.license", "digest": "sha256:" + "0" * 64},
        {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"},
    ]
    node.documents.indexes[f"{base}/manifests/2b"] = json.dumps({"layers": layers}).encode()
    node.web.files[f"{base}/blobs/sha256:{digest}"] = b"weights"
    node.list_models(model("a", "ollama://gemma:2b"))
    assert "m.gguf" in await node.prefetch("a")


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("ollama://gemma", "library/gemma/manifests/latest"),
        ("ollama://gemma:2b", "library/gemma/manifests/2b"),
        ("ollama://org/gemma:2b", "org/gemma/manifests/2b"),
    ],
)
def test_where_a_model_of_ollama_lies(uri: str, path: str) -> None:
    """M-8.5, G-W26: upstream asks for `library/org`."""
    assert ollama_manifest_url(uri, "https://r") == f"https://r/v2/{path}"


@pytest.mark.parametrize(
    "uri", ["ollama://", "ollama://a/b/c", "ollama://../x", "ollama://a:b:c", "ollama://a b"]
)
def test_what_names_no_model_of_ollama(uri: str) -> None:
    with pytest.raises(ArtifactUnavailable, match="write ollama://"):
        ollama_manifest_url(uri, "https://r")


BAD_LAYER = b'{"mediaType":"application/vnd.ollama.image.model","digest":"x"}'


@pytest.mark.parametrize(
    "manifest",
    [b"", b"[]", b"{}", b'{"layers": [{}]}', b'{"layers": 7}', b'{"layers":[%s]}' % BAD_LAYER],
)
def test_a_manifest_without_weights(manifest: bytes) -> None:
    with pytest.raises(Exception, match="model layer"):
        ollama_blob("ollama://x", manifest, "https://r")


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("file:///srv/x.gguf", "put it there yourself"),
        (
            "/srv/x.gguf",
            "supported: https://, http://, huggingface://, hf://, github:, oci://, ocifile://, ollama://",
        ),
        (
            "ftp://h/x",
            "supported: https://, http://, huggingface://, hf://, github:, oci://, ocifile://, ollama://",
        ),
        ("github:o", "write github:<owner>/<repository>/<path>"),
        ("hf://o/r", "write hf://<owner>/<repository>/<path>"),
    ],
)
async def test_other_sources_cost_a_warning(
    node: Node, caplog: pytest.LogCaptureFixture, uri: str, says: str
) -> None:
    """M-4.3.4, M-4.3.8, M-8.1."""
    node.list_models(model("a", uri))
    assert await node.prefetch("a") == []
    (warning,) = warnings(caplog)
    assert f'"{uri}"' in warning
    assert says in warning


async def test_a_variant_that_fits_better_is_installed_under_the_entrys_name(node: Node) -> None:
    """M-2.1.1, M-2.1.4."""
    node.list_models(
        model("family", variants=[{"model": "big"}], license="mit", size="1GB"),
        model("big", "https://files.example/big", "big.gguf", overrides={"backend": "llama-cpp"}),
    )
    node.web.files["https://files.example/big"] = b"x" * 100
    assert await node.prefetch("family") == ["._gallery_family.yaml", "big.gguf", "family.yaml"]
    record = node.config("._gallery_family")
    assert (record["name"], record["entry_name"], record["resolved_variant"]) == ("family", "family", "big")
    assert record["license"] == "mit"
    assert "pinned_variant" not in record


async def test_a_pinned_variant_wins_as_long_as_it_is_offered(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """M-2.1.4."""
    node.list_models(
        model("family", variants=[{"model": "big"}], size="1GB"),
        model("big", overrides={"backend": "llama-cpp"}),
    )
    node.filesystem.put(MODELS / "._gallery_family.yaml", b'{"pinned_variant": "family"}')
    await node.prefetch("family")
    assert node.config("._gallery_family")["resolved_variant"] == "family"
    assert node.config("._gallery_family")["pinned_variant"] == "family"
    node.filesystem.put(MODELS / "._gallery_family.yaml", b'{"pinned_variant": "gone"}')
    await node.prefetch("family")
    assert "pinned variant is no longer offered" in warnings(caplog)[0]
    assert "pinned_variant" not in node.config("._gallery_family")


@pytest.mark.parametrize("variants", [[{"model": "gone"}], [{"model": "family"}]])
async def test_variants_that_lead_nowhere_are_an_error_of_the_model(
    node: Node, caplog: pytest.LogCaptureFixture, variants: list[dict[str, str]]
) -> None:
    """M-2.1.1."""
    node.list_models(model("family", variants=variants))
    assert await node.prefetch("family") == []
    assert len(warnings(caplog)) == 1


async def test_the_frontend_need_not_send_what_was_prefetched(node: Node) -> None:
    """M-7.4, M-7.5: a probe below the model's own name finds it; upstream answers 404 and gets it again."""
    node.list_models(model("a", filename="acme/m.gguf"))
    node.filesystem.put(MODELS / "other.gguf", b"not prefetched")
    await node.prefetch("a")
    for key in ("models/a/acme/m.gguf", "models/org/a/acme/m.gguf"):
        probed = await node.files_service.probe(key)
        assert probed is not None
        assert (probed.size_bytes, probed.sha256) == (7, hashlib.sha256(b"weights").hexdigest())
        assert probed.path == MODELS / key.removeprefix("models/")
    for key in ("models/a/other.gguf", "models/a/m.gguf", "data/a/acme/m.gguf"):
        assert await node.files_service.probe(key) is None


async def test_what_was_hashed_while_it_came_is_not_read_again_for_a_probe(node: Node) -> None:
    """M-7.5: the frontend waits for the answer to its probe, and gigabytes take their time."""
    sha256 = hashlib.sha256(b"weights").hexdigest()
    node.hub.publish("owner/repo", REPOSITORY, large=["model.safetensors"])
    node.list_models(
        model("a", files=[{"filename": "m.gguf", "uri": FILE, "sha256": sha256}]), loads_directories("b")
    )
    for _ in ("fetched", "there"):
        await node.prefetch("a", "b")
        key = node.config("b")["artifacts"][0]["resolved"]["cache_key"]
        read, really = [], node.filesystem.open_outgoing

        async def watched(place: RootedPath) -> Any:
            if "sha256" not in place.relative.name:
                read.append(place.relative.name)  # noqa: B023 - of this round
            return await really(place)  # noqa: B023

        node.filesystem.open_outgoing = watched  # type: ignore[method-assign]
        for path in ("m.gguf", f".artifacts/huggingface/{key}/snapshot/model.safetensors"):
            probed = await node.files_service.probe(f"models/org/x/{path}")
            assert probed is not None
            assert probed.sha256 == sha256
        assert read == []
        node.filesystem.open_outgoing = really  # type: ignore[method-assign]
        await node.filesystem.remove_tree(MODELS / "org")


@pytest.mark.parametrize("sha256", ["", hashlib.sha256(b"weights").hexdigest()])
async def test_what_was_changed_since_is_read_for_a_probe(node: Node, sha256: str) -> None:
    """M-7.5."""
    node.list_models(model("a", files=[{"filename": "m.gguf", "uri": FILE, "sha256": sha256}]))
    await node.prefetch("a")
    node.filesystem.put(MODELS / "m.gguf", b"changed")
    probed = await node.files_service.probe("models/a/m.gguf")
    assert probed is not None
    assert probed.sha256 == hashlib.sha256(b"changed").hexdigest()


async def test_an_upload_over_a_shared_file_leaves_the_prefetched_one(node: Node) -> None:
    """M-7.5."""
    node.list_models(model("a"))
    await node.prefetch("a")
    await node.files_service.probe("models/a/m.gguf")
    upload = await node.files_service.receive("models/a/m.gguf")
    assert not isinstance(upload, Path)
    await upload.write(b"another")
    await upload.finish()
    assert node.filesystem.get(MODELS / "m.gguf") == b"weights"
    assert node.filesystem.get(MODELS / "a/m.gguf") == b"another"


async def test_what_is_prefetched_is_there_before_the_node_registers() -> None:
    """S-W34, M-1.5."""
    galleries = '[{"name":"site","url":"https://galleries.example/index.yaml"}]'
    settings = memory_settings(LOCALAI_PREFETCH_MODELS="a", LOCALAI_GALLERIES=galleries)
    container = Container(settings=settings, environment={})
    parts = in_memory(container)
    parts.gallery_source().indexes[SITE.url] = [model("a")]
    parts.downloads().files[FILE] = b"weights"
    worker = await build_worker(container)
    prefetch, seen = worker.prefetch, []

    async def watched() -> None:
        await prefetch()
        seen.append((len(parts.registry().calls), parts.filesystem().get(Path("/node/models/m.gguf"))))

    worker.prefetch = watched
    async with anyio.create_task_group() as tasks:
        await tasks.start(worker.run)
        worker.stop_requested.set()
    assert seen == [(0, b"weights")]


async def test_whoever_asks_hears_what_a_node_is_fetching(node: Node) -> None:
    """M-8.2, M-1.5: it is not registered yet, and may not be for hours."""
    node.list_models(model("a"), model("b", "https://files.example/missing", "b"))
    node.web.pause_s = 10
    progress = node.service.progress
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(node.prefetch, "a", "b")
        await anyio.sleep(5)
        assert progress.worries == ("model 1 of 2 is being prefetched: a",)
        await anyio.sleep(10)
    assert progress.worries == ("models not prefetched, the log tells why: b",)


async def test_without_galleries_every_model_is_missing(node: Node) -> None:
    node.service.galleries = ()
    await node.prefetch("a", "b")
    assert node.service.progress.worries == ("models not prefetched, the log tells why: a, b",)


async def test_a_probe_of_the_node_tells_what_it_is_fetching() -> None:
    """M-8.2."""
    galleries = '[{"name":"site","url":"https://galleries.example/index.yaml"}]'
    settings = memory_settings(LOCALAI_PREFETCH_MODELS="a", LOCALAI_GALLERIES=galleries)
    container = Container(settings=settings, environment={})
    parts = in_memory(container)
    parts.gallery_source().indexes[SITE.url] = [model("a")]
    parts.downloads().files[FILE] = b"weights"
    parts.downloads().pause_s = 100
    worker = await build_worker(container)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.run)
        await anyio.sleep(50)
        assert "model 1 of 1 is being prefetched: a" in (await container.readiness().check()).text
        await anyio.sleep(100)
        assert (await container.readiness().check()).text == "ok"
        worker.stop_requested.set()


async def test_a_worker_can_be_stopped_while_it_prefetches() -> None:
    """M-1.5: upstream's goes on, or is killed."""
    container = Container(settings=memory_settings(), environment={})
    parts = in_memory(container)
    worker = await build_worker(container)
    worker.prefetch = anyio.sleep_forever
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.run)
        await anyio.sleep(5)
        assert not parts.registry().calls
        worker.stop_requested.set()
    assert not parts.registry().calls


async def test_the_strict_switch_for_backends_has_no_say_over_models() -> None:
    """M-1.7: nor is a backend installed for them."""
    galleries = '[{"name":"site","url":"https://galleries.example/index.yaml"}]'
    variables = {"LOCALAI_PREFETCH_MODELS": "a", "LOCALAI_REQUIRE_BACKEND_INTEGRITY": "true"}
    settings = memory_settings(LOCALAI_GALLERIES=galleries, **variables)
    container = Container(settings=settings, environment={})
    parts = in_memory(container)
    parts.gallery_source().indexes[SITE.url] = [model("a")]
    parts.downloads().files[FILE] = b"weights"
    worker = await build_worker(container)
    await worker.prefetch()
    assert parts.filesystem().get(Path("/node/models/m.gguf")) == b"weights"
    assert parts.filesystem().files(Path("/node/backends")) == []


async def test_documents_of_other_entries_are_not_fetched(node: Node) -> None:
    """M-2.9: upstream fetches the document of every entry to learn its backend."""
    node.list_models(model("a"), {"name": "b", "url": "https://docs.example/b.yaml"})
    fetched: list[str] = []
    fetch = node.documents.fetch

    async def watched(url: str, *, trusted_root: Path, known: str = "") -> Any:
        fetched.append(url)
        return await fetch(url, trusted_root=trusted_root, known=known)

    node.documents.fetch = watched  # type: ignore[method-assign]
    await node.prefetch("a")
    assert fetched == [SITE.url]


REPOSITORY = {"config.json": b"{}", "model.safetensors": b"weights"}


def loads_directories(name: str = "a", **fields: Any) -> dict[str, Any]:
    overrides = {"backend": "vllm", "parameters": {"model": "owner/repo"}, **fields}
    return {"name": name, "overrides": overrides}


def declares(name: str = "a", **companions: str) -> dict[str, Any]:
    entries = [{"source": {"type": "huggingface", "repo": "owner/repo"}}]
    for companion, repository in companions.items():
        source = {"type": "huggingface", "repo": repository}
        entries.append({"name": companion, "target": "companion", "source": source})  # type: ignore[dict-item]
    return {"name": name, "overrides": {"backend": "llama-cpp", "artifacts": entries}}


async def test_a_whole_repository_is_fetched_for_a_backend_that_loads_directories(node: Node) -> None:
    """M-5.1, M-5.3: where it lies is written into the configuration."""
    commit = node.hub.publish("owner/repo", REPOSITORY)
    node.list_models(loads_directories())
    files = await node.prefetch("a")
    config = node.config("a")
    assert config["parameters"] == {"model": "owner/repo"}
    (artifact,) = config["artifacts"]
    assert artifact["source"] == {"repo": "owner/repo", "revision": "main", "type": "huggingface"}
    assert (artifact["name"], artifact["target"]) == ("model", "model")
    assert (artifact["resolved"]["endpoint"], artifact["resolved"]["revision"]) == (
        "https://huggingface.co",
        commit,
    )
    top = f".artifacts/huggingface/{artifact['resolved']['cache_key']}/"
    assert {f"{top}manifest.json", f"{top}snapshot/config.json", f"{top}snapshot/model.safetensors"} <= {
        *files
    }


async def test_the_snapshot_is_there_before_the_configuration(node: Node) -> None:
    """M-4.1.1, M-5.1: what is declared is part of the model, which is not there without it."""
    node.list_models(declares())
    assert await node.prefetch("a") == []
    node.hub.publish("owner/repo", REPOSITORY)
    assert "a.yaml" in await node.prefetch("a")


async def test_companions_are_fetched_and_fail_the_model(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """M-5.1."""
    node.hub.publish("owner/repo", REPOSITORY)
    node.list_models(declares(vae="owner/vae"))
    assert "a.yaml" not in await node.prefetch("a")
    assert "owner/vae" in warnings(caplog)[-1]
    node.hub.publish("owner/vae", {"vae.bin": b"v"})
    await node.prefetch("a")
    artifacts = node.config("a")["artifacts"]
    assert [(each["name"], each["target"]) for each in artifacts] == [
        ("model", "model"),
        ("vae", "companion"),
    ]
    assert artifacts[0]["resolved"]["cache_key"] != artifacts[1]["resolved"]["cache_key"]


@pytest.mark.parametrize("reference", ["owner/repo", "hf://owner/repo?", "hf://owner", "owner/repo/["])
async def test_weights_that_nobody_declared_are_left_to_the_backend(
    node: Node, caplog: pytest.LogCaptureFixture, reference: str
) -> None:
    """M-5.1: also where the reference is none."""
    node.list_models(loads_directories(parameters={"model": reference}))
    assert await node.prefetch("a") == ["._gallery_a.yaml", "a.yaml"]
    assert "artifacts" not in node.config("a")
    assert warnings(caplog)[-1].startswith(
        "weights not prefetched, they are left to the backend: model=a error="
    )


async def test_a_bad_declaration_fails_the_model(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    """M-5.1."""
    node.list_models({"name": "a", "overrides": {"artifacts": [{"source": {"type": "s3"}}]}})
    assert await node.prefetch("a") == []
    assert "source.type is 's3', only huggingface is known" in warnings(caplog)[0]


@pytest.mark.parametrize(
    "entry",
    [
        {**declares(), "files": [{"filename": "m.gguf", "uri": FILE}]},
        {**loads_directories(), "files": [{"filename": "m.gguf", "uri": FILE}]},
        loads_directories(parameters={"model": "here"}),
        loads_directories(parameters={"model": "here/too.bin"}),
        loads_directories(parameters={"model": "elsewhere"}),
    ],
)
async def test_a_model_with_files_or_a_path_wants_no_repository(node: Node, entry: dict[str, Any]) -> None:
    """M-5.1."""
    node.hub.publish("owner/repo", REPOSITORY)
    node.filesystem.put(MODELS / "here/too.bin", b"1")
    node.list_models(entry)
    assert "a.yaml" in await node.prefetch("a")
    assert node.hub.asked == []
    assert "resolved" not in str(node.config("a").get("artifacts"))


async def test_the_frontend_need_not_send_a_snapshot(node: Node) -> None:
    """M-5.3, M-7.3, M-7.5: it stages the files under the same names, below the model's own."""
    node.hub.publish("owner/repo", REPOSITORY)
    node.list_models(loads_directories())
    await node.prefetch("a")
    for boot in range(2):
        del boot
        key = node.config("a")["artifacts"][0]["resolved"]["cache_key"]
        path = f".artifacts/huggingface/{key}/snapshot/model.safetensors"
        probed = await node.files_service.probe(f"models/org/a/{path}")
        assert probed is not None
        assert probed.sha256 == hashlib.sha256(b"weights").hexdigest()
        await node.prefetch("a")


async def test_abandoned_parts_go_whatever_is_prefetched(node: Node) -> None:
    """M-5.3: the clock of these files began in 1970."""
    for writer in (OURS, "0" * 16):
        node.filesystem.put(MODELS / f".artifacts/.partial/{'f' * 64}.{writer}/snapshot/x", b"1")
    node.list_models(model("a"))
    assert await node.prefetch("a") == ["._gallery_a.yaml", "a.yaml", "m.gguf"]


async def test_deleting_a_model_leaves_snapshots(node: Node) -> None:
    """M-6.6: also what was shared from them under the model's own name."""
    node.hub.publish("owner/repo", REPOSITORY)
    node.list_models(loads_directories())
    files = await node.prefetch("a")
    key = node.config("a")["artifacts"][0]["resolved"]["cache_key"]
    path = f".artifacts/huggingface/{key}/snapshot/model.safetensors"
    await node.files_service.probe(f"models/a/{path}")
    await DeleteModel(node.filesystem, MODELS).delete("a")
    assert node.files == files
    await DeleteModel(node.filesystem, MODELS).delete("a")
    assert node.files == [name for name in files if name != "a.yaml"]
    assert node.filesystem.get(MODELS / path) == b"weights"
