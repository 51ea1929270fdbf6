"""The command line, up to where the worker itself begins."""

import io
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner, Result

from localai_worker.app.cli import app
from localai_worker.app.config_report import write_config_table
from localai_worker.app.option_table import BY_FIELD, OPTIONS
from localai_worker.app.option_values import OptionValue
from localai_worker.app.settings import Settings
from localai_worker.domain.errors import BusUnavailable

REQUIRED = {"LOCALAI_REGISTER_TO": "http://frontend:8080", "LOCALAI_NATS_URL": "nats://nats:4222"}
ENVIRONMENT = REQUIRED | {"LOCALAI_REGISTRATION_TOKEN": "changeme"}


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No variable of this project is set, and no `.env` file lies in the way."""
    for option in OPTIONS:
        for name in option.env:
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*arguments: str, environment: Mapping[str, str] | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), env=environment, prog_name="localai-worker")


def test_version_prints_the_version() -> None:
    result = invoke("version")
    assert (result.exit_code, result.stdout) == (0, "localai-worker 0.1.0\n")


def test_without_a_command_the_commands_are_listed() -> None:
    result = invoke()
    assert all(command in result.output for command in ("run", "config", "demo", "version"))


@pytest.mark.parametrize("command", ["run", "config"])
def test_help_names_every_flag_variable_and_default(command: str) -> None:
    result = invoke(command, "--help", environment={"COLUMNS": "200"})
    assert result.exit_code == 0
    for option in OPTIONS:
        assert all(flag in result.stdout for flag in option.flags)
        assert all(name in result.stdout for name in option.env)
    assert "default 0.0.0.0:50051" in result.stdout


def test_config_prints_option_source_and_value() -> None:
    result = invoke("config", "--node-name", "mine", environment=ENVIRONMENT)
    assert (result.exit_code, result.stderr) == (0, "")
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in result.stdout.splitlines()}
    assert list(rows) == [option.name for option in OPTIONS]
    assert rows["node-name"].split() == ["flag", "--node-name", "mine"]
    assert rows["register-to"].split() == ["environment", "LOCALAI_REGISTER_TO", "http://frontend:8080"]
    assert rows["registration-token"].split() == ["environment", "LOCALAI_REGISTRATION_TOKEN", "***"]
    assert rows["heartbeat-interval"].split() == ["default", "10s"]


def test_config_json_is_one_object_of_values_and_sources() -> None:
    result = invoke("config", "--json", environment=ENVIRONMENT)
    assert result.exit_code == 0
    options = json.loads(result.stdout)
    assert list(options) == [option.name for option in OPTIONS]
    assert options["nats-url"] == {"value": "nats://nats:4222", "source": "environment LOCALAI_NATS_URL"}
    assert options["registration-token"]["value"] == "***"
    assert options["nats-jwt"] == {"value": "", "source": "default"}


def test_config_shows_what_is_missing_and_exits_2() -> None:
    result = invoke("config")
    assert result.exit_code == 2
    assert result.stdout.count("(missing, required)") == 2
    assert len(result.stdout.splitlines()) == len(OPTIONS)
    complaints = [line for line in result.stderr.splitlines() if "warning" not in line]
    assert [line.split()[1] for line in complaints] == ["LOCALAI_REGISTER_TO", "LOCALAI_NATS_URL"]
    assert json.loads(invoke("config", "--json").stdout)["register-to"]["value"] is None


def test_config_names_every_wrong_value_and_every_warning() -> None:
    result = invoke(
        "config", "--grpc-max-port=x", "--debug=maybe", "--nats-tlsca=gone.pem", environment=REQUIRED
    )
    assert result.exit_code == 2
    no_token, *wrong = result.stderr.splitlines()
    assert no_token.startswith("localai-worker: warning: no registration token: ")
    assert wrong == [
        'localai-worker: --grpc-max-port="x" must be a whole number, like 60000',
        'localai-worker: --debug="maybe" must be true, 1, yes, false, 0 or no',
    ]


def test_config_looks_for_the_files_that_options_name(bare_machine: Path) -> None:
    result = invoke("config", "--nats-tlsca", "gone.pem", environment=ENVIRONMENT)
    assert result.exit_code == 2
    path = bare_machine / "gone.pem"
    assert result.stderr == f'localai-worker: --nats-tls-ca="{path}" must be a file that exists\n'


def test_config_is_a_ruled_table_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal()
    missing, default = BY_FIELD["register_to"], BY_FIELD["node_name"]
    values = [OptionValue(missing, None, "not set"), OptionValue(default, "[bold]gpu[/bold]", "derived")]
    write_config_table(values, terminal)
    assert "│ register-to │ (missing, required) │ not set │" in terminal.getvalue()
    assert "[bold]gpu[/bold]" in terminal.getvalue()


@pytest.mark.parametrize(
    ("arguments", "level"),
    [
        (["--debug"], "debug"),
        (["--debug=true"], "debug"),
        (["--debug=false"], "info"),
        (["--debug", "--log-level", "warn"], "warn"),
    ],
)
def test_a_switch_is_bare_or_has_a_value(arguments: list[str], level: str) -> None:
    result = invoke("config", "--json", *arguments, environment=ENVIRONMENT)
    assert json.loads(result.stdout)["log-level"]["value"] == level


def test_a_negated_switch_is_off() -> None:
    result = invoke("config", "--json", "--no-log-dedup-logs", environment=ENVIRONMENT)
    assert json.loads(result.stdout)["log-dedup-logs"] == {
        "value": "false",
        "source": "flag --log-dedup-logs",
    }


def test_a_repeated_list_flag_adds_to_the_list() -> None:
    result = invoke(
        "config", "--json", "--prefetch-models", "a,b", "--prefetch-models=c", environment=ENVIRONMENT
    )
    assert json.loads(result.stdout)["prefetch-models"]["value"] == "a,b,c"


def test_a_flag_set_to_nothing_beats_its_variable() -> None:
    result = invoke(
        "config", "--json", "--node-labels=", environment={**ENVIRONMENT, "LOCALAI_NODE_LABELS": "a=b"}
    )
    assert json.loads(result.stdout)["node-labels"] == {"value": "", "source": "flag --node-labels"}


def test_both_spellings_of_the_ca_flag_work(bare_machine: Path) -> None:
    (bare_machine / "ca.pem").touch()
    for flag in ("--nats-tls-ca", "--nats-tlsca"):
        result = invoke("config", "--json", flag, "ca.pem", environment=ENVIRONMENT)
        assert json.loads(result.stdout)["nats-tls-ca"]["value"] == str(bare_machine / "ca.pem")


def test_a_dot_env_file_sets_options(bare_machine: Path) -> None:
    (bare_machine / ".env").write_text("LOCALAI_NODE_NAME=from-file\nLOCALAI_NATS_URL=nats://other\n")
    options = json.loads(invoke("config", "--json", environment=ENVIRONMENT).stdout)
    assert options["node-name"]["value"] == "from-file"
    assert options["nats-url"]["value"] == "nats://nats:4222"


def test_an_unknown_flag_is_a_usage_error() -> None:
    result = invoke("run", "--no-such-flag")
    assert result.exit_code == 2
    assert "--no-such-flag" in result.stderr


def test_run_says_in_one_line_what_is_missing() -> None:
    result = invoke("run")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == (
        "localai-worker: LOCALAI_REGISTER_TO or --register-to is not set;"
        " it must be the frontend's base URL, like http://frontend:8080\n"
    )


def test_run_says_that_an_env_file_was_unreadable_when_settings_are_missing(bare_machine: Path) -> None:
    (bare_machine / ".env").symlink_to(".env")
    lines = invoke("run").stderr.splitlines()
    assert "warning: " in lines[0]
    assert ".env is left out" in lines[0]
    assert "LOCALAI_REGISTER_TO" in lines[1]


def test_run_hands_settings_and_environment_to_the_worker_and_reports_how_it_ended(
    monkeypatch: pytest.MonkeyPatch, bare_machine: Path
) -> None:
    calls: list[tuple[Settings, Mapping[str, str]]] = []
    outcomes: list[int | Exception] = [
        0,
        3,
        BusUnavailable("nats://nats:4222", "refused"),
        ExceptionGroup("tasks", [ExceptionGroup("more", [BusUnavailable("nats://nats:4222", "refused")])]),
        ValueError("a bug"),
    ]

    def run_worker(settings: Settings, environment: Mapping[str, str]) -> int:
        calls.append((settings, environment))
        outcome = outcomes[len(calls) - 1]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    worker = ModuleType("localai_worker.app.run")
    worker.run_worker = run_worker  # type: ignore[attr-defined]  # a module built for the test
    monkeypatch.setitem(sys.modules, "localai_worker.app.run", worker)
    logged: list[dict[str, object]] = []
    monkeypatch.setattr("localai_worker.app.logs.set_up_logging", lambda **given: logged.append(given))
    (bare_machine / ".env").write_text("HF_TOKEN=from-file\n")

    results = [invoke("run", "--debug", environment=ENVIRONMENT) for _ in outcomes]

    settings, environment = calls[0]
    assert settings.register_to == "http://frontend:8080"
    assert environment["HF_TOKEN"] == "from-file"
    assert logged[0] == {"level": "debug", "line_format": "default", "dedup": None}
    refused = "localai-worker: message bus nats://nats:4222 is unavailable: refused"
    assert [result.exit_code for result in results[:4]] == [0, 3, 1, 1]
    assert [result.stderr.partition(";")[0].strip() for result in results[:4]] == ["", "", refused, refused]
    assert isinstance(results[4].exception, ValueError)


def test_demo_options_are_checked() -> None:
    assert "--keep" in invoke("demo", "--help").stdout
    assert invoke("demo", "--bus", "kafka").exit_code == 2
    assert invoke("demo", "--timeout", "0").exit_code == 2


def test_demo_hands_its_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, object]] = []

    def run_demo(**given: object) -> int:
        calls.append(given)
        return 0

    command = ModuleType("localai_worker.app.demo.command")
    command.run_demo = run_demo  # type: ignore[attr-defined]  # a module built for the test
    monkeypatch.setitem(sys.modules, "localai_worker.app.demo.command", command)
    assert invoke("demo").exit_code == 0
    assert invoke("demo", "--bus", "memory", "--keep", "--timeout", "9.5").exit_code == 0
    assert invoke("demo", "--storage", "s3").exit_code == 0
    assert calls == [
        {"bus": "nats", "keep": False, "timeout_s": 300.0, "storage": "http"},
        {"bus": "memory", "keep": True, "timeout_s": 9.5, "storage": "http"},
        {"bus": "nats", "keep": False, "timeout_s": 300.0, "storage": "s3"},
    ]
    assert invoke("demo", "--bus", "memory", "--storage", "s3").exit_code == 2


def test_the_module_runs_as_a_program(bare_machine: Path) -> None:
    command = [sys.executable, "-m", "localai_worker", "config", "--json"]
    done = subprocess.run(
        command, env=ENVIRONMENT, cwd=bare_machine, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["models-path"]["value"] == str(bare_machine / "models")


def test_the_command_line_imports_nothing_that_is_slow(bare_machine: Path) -> None:
    slow = {"anyio", "dependency_injector", "dotenv", "grpc", "httpx", "nats", "rich", "starlette", "yaml"}
    code = f"""
import sys
sys.argv = ["localai-worker", "config", "--json", "--debug"]
from localai_worker.app.entry import main
try:
    main()
finally:
    sys.stderr.write(repr(sorted({slow} & set(sys.modules))))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=ENVIRONMENT,
        cwd=bare_machine,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == "[]"
