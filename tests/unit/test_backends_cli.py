"""`localai-worker backends ...` on a real disk."""

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from localai_worker.app.backend_tools.progress_bar import shown
from localai_worker.app.cli import app
from localai_worker.app.option_table import OPTIONS
from localai_worker.domain.install_progress import InstallStep
from localai_worker.domain.messages.backend_progress import InstallPhase
from tests.archives import entry, tar, write_oci


@pytest.fixture(autouse=True)
def no_handlers_left() -> Iterator[None]:
    """The commands set up logging for a process of their own."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


class Node:
    """A node with a gallery of its own; commands see nothing else of this machine."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.backends = top / "backends"
        self.backends.mkdir()
        self.environment = {
            "HOME": str(top),
            "LOCALAI_BACKENDS_PATH": str(self.backends),
            "LOCALAI_BACKENDS_SYSTEM_PATH": str(top / "system"),
            "LOCALAI_MODELS_PATH": str(top / "models"),
            "LOCALAI_BACKEND_GALLERIES": f'[{{"name":"site","url":"file://{self.backends}/index.yaml"}}]',
            "LOCALAI_FORCE_META_BACKEND_CAPABILITY": "default",
        }

    def payload(self, name: str, program: bytes = b"#!/bin/sh\n") -> str:
        archive = self.top / f"{name}.tar"
        write_oci(archive, tar([entry("run.sh", program, mode=0o755)]))
        return f"ocifile://{archive}"

    def list_engine(self) -> None:
        (self.backends / "index.yaml").write_text(
            "- name: engine\n  capabilities: {default: cpu-engine, nvidia: cuda-engine}\n"
            f"- name: cpu-engine\n  alias: engine\n  version: 1.10\n  uri: {self.payload('engine')}\n"
            "- name: cuda-engine\n  uri: quay.io/x/y:latest-cuda\n"
        )

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(
            app, ["backends", *arguments], env=self.environment, prog_name="localai-worker"
        )


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    for option in OPTIONS:
        for name in option.env:
            monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    node = Node(tmp_path)
    node.list_engine()
    return node


def test_no_frontend_is_needed_and_an_empty_node_says_so(node: Node) -> None:
    result = node.run("list")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "no backends are installed\n", "")


def test_explain_tells_what_would_be_installed_and_writes_nothing(node: Node) -> None:
    result = node.run("explain", "engine")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "capability: default"
    assert "  default: cpu-engine  taken" in lines
    assert "  nvidia: cuda-engine  this node is default" in lines
    assert lines[-1].startswith(
        f"outcome: would install ocifile://{node.top}/engine.tar into {node.backends}/cpu-engine"
    )
    assert [path.name for path in node.backends.iterdir()] == ["index.yaml"]


def test_explain_as_json_has_everything(node: Node) -> None:
    told = json.loads(node.run("explain", "engine", "--json").stdout)
    assert told["detection"]["capability"] == "default"
    assert told["detection"]["steps"][-1]["rule"] == "forced by the operator"
    assert [each["entry"]["name"] for each in told["considered"]] == ["engine", "cpu-engine"]
    assert told["sources"][0]["estimate"]["disk_bytes"] > 0
    assert told["target"] == str(node.backends / "cpu-engine")
    assert told["outcome"].startswith("would install")


def test_explain_of_what_cannot_run_here_tells_why(node: Node) -> None:
    result = node.run("explain", "cuda-engine")
    assert result.exit_code == 1
    assert '"cuda" in its name or uri is for nvidia..., this node is default' in result.stdout
    assert 'outcome: would fail: no backend found with name "cuda-engine"' in result.stdout


def test_install_list_upgrade_and_delete(node: Node) -> None:
    installed = node.run("install", "engine")
    assert installed.exit_code == 0, installed.output
    assert installed.stdout.splitlines()[0] == "resolving engine"
    assert installed.stdout.splitlines()[-1] == f"engine: {node.backends}/cpu-engine/run.sh"
    rows = [line.split() for line in node.run("list").stdout.splitlines()]
    assert [row[0] for row in rows] == ["name", "cpu-engine", "engine"]
    assert "alias of cpu-engine" in node.run("list").stdout
    listed = {each["name"]: each for each in json.loads(node.run("list", "--json").stdout)}
    assert listed["cpu-engine"]["version"] == "1.10"
    assert listed["engine"]["run_file"] == f"{node.backends}/cpu-engine/run.sh"
    assert "installed already" in node.run("explain", "engine").stdout

    node.payload("engine", b"#!/bin/sh\n# new\n")
    assert node.run("install", "engine").exit_code == 0
    assert b"new" not in (node.backends / "cpu-engine/run.sh").read_bytes()
    upgraded = node.run("upgrade", "engine")
    assert upgraded.exit_code == 0, upgraded.output
    assert b"new" in (node.backends / "cpu-engine/run.sh").read_bytes()

    deleted = node.run("delete", "engine")
    assert deleted.stdout.splitlines() == [
        f"deleted {node.backends}/cpu-engine",
        f"deleted {node.backends}/engine",
    ]
    assert [path.name for path in node.backends.iterdir()] == ["index.yaml"]


def test_what_is_not_there_is_neither_deleted_nor_upgraded(node: Node) -> None:
    for command in ("delete", "upgrade"):
        result = node.run(command, "engine")
        assert result.exit_code == 1
        assert "nothing is installed under engine" in result.stderr


def test_an_install_by_uri_has_the_name_and_alias_it_is_given(node: Node) -> None:
    """N-B6."""
    uri = node.payload("tool")
    assert node.run("install", "--uri", uri).exit_code == 0
    assert node.run("install", "my-tool", "--uri", uri, "--alias", "tool-x").exit_code == 0
    listed = json.loads(node.run("list", "--json").stdout)
    assert [(each["name"], each["kind"]) for each in listed] == [
        ("my-tool", "backend"),
        ("tool", "backend"),
        ("tool-x", "alias of my-tool"),
    ]


def test_an_external_backend_is_upgraded_from_where_it_came(node: Node) -> None:
    uri = node.payload("tool")
    node.run("install", "my-tool", "--uri", uri, "--alias", "tool-x")
    node.payload("tool", b"#!/bin/sh\n# new\n")
    upgraded = node.run("upgrade", "my-tool")
    assert upgraded.exit_code == 0, upgraded.output
    assert b"new" in (node.backends / "my-tool/run.sh").read_bytes()
    assert json.loads(node.run("list", "--json").stdout)[1]["kind"] == "alias of my-tool"


def test_on_a_terminal_progress_is_a_bar() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    with shown(console) as listen:
        listen(InstallStep(InstallPhase.RESOLVING, "quay.io/x"))
        listen(InstallStep(InstallPhase.DOWNLOADING, "quay.io/x", 1 << 20, 4 << 20))
        listen(InstallStep(InstallPhase.EXTRACTING, "quay.io/x", 4 << 20, 4 << 20))
    assert "extracting" in screen.getvalue()
    assert "4.0/4.0 MiB" in screen.getvalue()


def test_a_failed_install_is_one_line_and_leaves_nothing(node: Node) -> None:
    result = node.run("install", "unheard-of")
    assert result.exit_code == 1
    assert (
        'localai-worker: installing backend from gallery: no backend found with name "unheard-of"'
        in result.stderr
    )
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "arguments", [["install"], ["install", "x", "--alias", "y"], ["explain"], ["delete"]]
)
def test_a_command_that_says_too_little_is_a_usage_error(node: Node, arguments: list[str]) -> None:
    assert node.run(*arguments).exit_code == 2


def test_what_runs_is_not_deleted_behind_the_workers_back(node: Node) -> None:
    node.run("install", "engine")
    running = subprocess.Popen(
        [sys.executable, "-c", "print('up', flush=True); input()"],
        cwd=node.backends / "cpu-engine",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert running.stdout is not None
    running.stdout.readline()
    try:
        refused = node.run("delete", "engine")
        assert refused.exit_code == 1
        assert f"engine is running (processes {running.pid})" in refused.stderr
        upgraded = node.run("upgrade", "engine")
        assert upgraded.exit_code == 0
        assert (
            f"still running from the old files until the worker restarts them: processes {running.pid}"
            in upgraded.stderr
        )
        assert node.run("delete", "engine", "--force").exit_code == 0
    finally:
        running.communicate(b"\n", timeout=20)
    assert not (node.backends / "cpu-engine").exists()


def test_settings_that_only_a_worker_needs_do_not_matter(node: Node) -> None:
    node.environment["LOCALAI_REGISTER_TO"] = "no url at all"
    assert node.run("list").exit_code == 0
    node.environment["LOCALAI_BACKENDS_PATH"] = str(node.top / "elsewhere")
    assert node.run("list", "--backends-path", str(node.backends)).exit_code == 0
