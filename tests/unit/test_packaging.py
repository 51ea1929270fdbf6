"""What is packed is what is there, everything imported is declared, and no file is tied to one place."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

from tests.syntax import parsed

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
PACKAGE = "localai_worker"

# Split, so that this file does not contain what it forbids.
_INDEX_HOSTS = ("python" + "hosted.org", "pypi" + ".org", "pypi" + ".python.org")
# Homes and working directories of whoever built something; `op` is the operator of the tests.
_BUILD_PATH = re.compile(r"(?<![\w.$<{/-])/(home(?!/op/)|root|Users|builds|workspace)/[A-Za-z][\w.-]*/")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://|\s@\s", re.IGNORECASE)
_PIN = re.compile(r"[A-Za-z0-9._-]+(\[[A-Za-z0-9._,-]+\])?==\S+")
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def normalised(requirement: str) -> str:
    """The name of a distribution as all its spellings compare."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0]).lower()


def packages_in_the_tree() -> set[str]:
    directories = (path.parent.relative_to(SOURCE) for path in SOURCE.rglob("__init__.py"))
    return {".".join((PACKAGE, *directory.parts)) for directory in directories}


def test_the_list_of_packages_is_the_tree() -> None:
    listed = project()["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(packages_in_the_tree())


def test_every_directory_with_modules_is_a_package() -> None:
    directories = {path.parent for path in SOURCE.rglob("*.py")}
    assert [str(path) for path in directories if not (path / "__init__.py").is_file()] == []


def test_every_file_that_is_no_module_is_package_data() -> None:
    patterns = project()["tool"]["setuptools"]["package-data"][PACKAGE]
    packed = {path for pattern in patterns for path in SOURCE.glob(pattern)}
    others = {ROOT / path for path in tracked_files() if path.startswith("src/") and not path.endswith(".py")}
    assert others <= packed


@cache
def runtime_imports() -> dict[str, set[str]]:
    """Every top-level module that a module of ours imports, with the files that do."""
    found: dict[str, set[str]] = {}
    for path in SOURCE.rglob("*.py"):
        for name in imported_by(parsed(path)):
            found.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    return found


def imported_by(tree: ast.AST) -> Iterator[str]:
    """Absolute imports at any depth, also those of a function; `google.protobuf` in full: a namespace.

    What only type checkers read needs nothing installed.
    """
    typed = {each for node in ast.walk(tree) if _is_for_type_checkers(node) for each in ast.walk(node)}
    for node in ast.walk(tree):
        if node in typed:
            continue
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            modules = [node.module]
        for module in modules:
            yield ".".join(module.split(".")[:2]) if module.startswith("google.") else module.split(".")[0]


def _is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


@cache
def installed_distributions() -> Mapping[str, list[str]]:
    """By top-level module; cached, for it reads every file list of the environment."""
    return packages_distributions()


def distributions_of(module: str) -> set[str]:
    if module == "google.protobuf":
        return {"protobuf"}
    return {normalised(name) for name in installed_distributions().get(module, ())}


def test_every_import_is_a_declared_dependency() -> None:
    declared = {normalised(each) for each in project()["project"]["dependencies"]}
    extras = {
        "src/app/demo/": "demo",
        "src/adapters/signatures/": "verify",
        "src/app/pytest_plugin.py": "testing",
    }
    undeclared = {}
    for module, files in runtime_imports().items():
        if module in sys.stdlib_module_names or module == PACKAGE:
            continue
        allowed = set(declared)
        for place, extra in extras.items():
            if all(name.startswith(place) for name in files):
                wanted = project()["project"]["optional-dependencies"][extra]
                allowed |= {normalised(each) for each in wanted}
        if not distributions_of(module) & allowed:
            undeclared[module] = sorted(files)
    assert undeclared == {}


def test_every_dependency_is_imported() -> None:
    imported = {name for module in runtime_imports() for name in distributions_of(module)}
    # Imported by uvicorn, for the first connection that is upgraded.
    by_name = {"websockets"}
    declared = {normalised(each) for each in project()["project"]["dependencies"]}
    assert declared - imported - by_name == set()


@cache
def tracked_files() -> tuple[str, ...]:
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: which files are tracked is not known")
    return tuple(name for name in listed.decode().split("\0") if name and (ROOT / name).is_file())


@pytest.mark.parametrize("host", _INDEX_HOSTS)
def test_no_tracked_file_names_a_package_index(host: str) -> None:
    needle = host.encode()
    assert [name for name in tracked_files() if needle in (ROOT / name).read_bytes().lower()] == []


def test_no_tracked_file_names_a_path_of_a_build_machine() -> None:
    # A checkout right below / (a container's) may have a name that texts use for something else.
    here = f"{ROOT}/" if len(ROOT.parts) > 2 else None
    found = []
    for name in tracked_files():
        lines = (ROOT / name).read_text(encoding="utf-8", errors="replace").splitlines()
        found += [
            f"{name}:{number}: {line.strip()[:200]}"
            for number, line in enumerate(lines, start=1)
            if _BUILD_PATH.search(line) or (here and here in line)
        ]
    assert found == []


def requirement_files() -> list[Path]:
    return sorted((ROOT / "requirements").glob("*.txt"))


def test_there_are_pins_for_development_the_model_and_the_installer() -> None:
    assert [path.name for path in requirement_files()] == ["dev.txt", "model.txt", "uv.txt"]


@pytest.mark.parametrize("path", requirement_files(), ids=lambda path: str(path.name))
def test_every_requirement_is_pinned_with_hashes_and_without_an_address(path: Path) -> None:
    joined = re.sub(r"\\\n", " ", path.read_text(encoding="utf-8"))
    lines = [line.strip() for line in joined.splitlines() if line.strip() and not line.startswith("#")]
    assert lines
    wrong = [
        line
        for line in lines
        if not _PIN.match(line) or not _HASH.search(line) or _ADDRESS.search(line) or " -" in unhashed(line)
    ]
    assert wrong == []


def unhashed(line: str) -> str:
    """A requirement less its hashes: any other option left in it would be one to pip."""
    return _HASH.sub("", line)


def test_every_declared_dependency_is_pinned() -> None:
    pins = (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8")
    pinned = {normalised(line) for line in pins.splitlines() if _PIN.match(line)}
    metadata = project()["project"]
    declared = {*metadata["dependencies"], *metadata["optional-dependencies"]["demo"]}
    declared |= set(project()["dependency-groups"]["dev"])
    assert {normalised(each) for each in declared} - pinned == set()
