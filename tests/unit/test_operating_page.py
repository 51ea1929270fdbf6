"""docs/operating.md says of every setting what the option table says."""

import ast
import re
from dataclasses import fields
from pathlib import Path

from localai_worker.app.option_table import BY_FIELD, OPTIONS
from localai_worker.app.options import Kind, Option
from localai_worker.app.settings import Settings
from tests.syntax import parsed

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "operating.md"
HEAD = ("| flag | variables | default | since | meaning |", "|---|---|---|---|---|")

# Checked where the settings are read, or used under another name.
_USED_ELSEWHERE = {
    "registration_require_auth",
    "distributed_require_auth",
    "nats_require_auth",
    "grpc_max_port",
}


def line_of(option: Option) -> str:
    """The line of the page's table that `option` should have."""
    value = "[=true\\|false]" if option.kind is Kind.SWITCH else f" {placeholder(option)}"
    flags = "<br>".join(f"`{flag}`{value}" for flag in option.flags)
    if option.negatable:
        flags += f"<br>`--no-{option.name}`"
    variables = "<br>".join(f"`{name}`" for name in option.env)
    default = "required" if option.required else f"`{option.default}`" if option.default else "-"
    return f"| {flags} | {variables} | {default} | {option.since} | {option.help} |"


def placeholder(option: Option) -> str:
    return "\\|".join(option.choices) or option.kind.value


def table_of_the_page() -> list[str]:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = lines.index(HEAD[0])
    end = next(number for number in range(start, len(lines)) if not lines[number].startswith("|"))
    return lines[start:end]


def test_the_table_of_settings_is_the_option_table() -> None:
    assert table_of_the_page() == [*HEAD, *map(line_of, OPTIONS)]


def test_no_setting_is_without_effect() -> None:
    """A setting that nobody reads would be believed."""
    unused = {field.name for field in fields(Settings)} & set(BY_FIELD) - used_settings() - _USED_ELSEWHERE
    assert unused == set()


def used_settings() -> set[str]:
    """Fields of the settings that the parts of a worker are built from."""
    used = set()
    modules = (
        *("artifact_parts", "concrete_adapters", "container", "memory_container", "model_parts"),
        *("part_settings", "startup", "storage"),
    )
    for module in modules:
        tree = parsed(ROOT / "src" / "app" / f"{module}.py")
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) in {
                "settings",
                "settings.provided",
            }:
                used.add(node.attr)
    return used


def test_every_variable_of_localai_on_the_page_is_one() -> None:
    known = {name for option in OPTIONS for name in option.env} | {
        "LOCALAI_GRPC_AUTH_TOKEN",
        "LOCALAI_BACKEND_PARENT_WATCH",
        "LOCALAI_WORKER_LAUNCH",
        "LOCALAI_FORCE_META_BACKEND_CAPABILITY",
        "LOCALAI_FORCE_META_BACKEND_CAPABILITY_RUN_FILE",
    }
    named = set(re.findall(r"`(LOCALAI_\w+)(?:=[^`]*)?`", PAGE.read_text(encoding="utf-8")))
    assert named - known == set()
