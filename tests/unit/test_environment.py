"""`.env` files: which are read, what wins, what is said about those that cannot be read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from localai_worker.app.environment import load_environment


@dataclass
class Machine:
    """Directories of a machine, with the warnings its loads gave."""

    root: Path
    warnings: list[str] = field(default_factory=list)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def load(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        return load_environment(
            base or {},
            self.root / "cwd",
            self.root / "home",
            system=self.root / "etc",
            warn=self.warnings.append,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


FILES = ["cwd/.env", "cwd/localai.env", "home/localai.env", "home/.config/localai.env", "etc/localai.env"]


def test_without_files_the_environment_is_what_it_was(machine: Machine) -> None:
    base = {"PATH": "/bin"}
    loaded = machine.load(base)
    assert (loaded, machine.warnings) == (base, [])
    assert loaded is not base


@pytest.mark.parametrize("name", FILES)
def test_each_of_localais_files_is_read(machine: Machine, name: str) -> None:
    machine.write(name, "LOCALAI_NODE_NAME=from-file\n")
    assert machine.load() == {"LOCALAI_NODE_NAME": "from-file"}


@pytest.mark.parametrize(("first", "second"), list(pairwise(FILES)))
def test_an_earlier_file_wins_over_a_later_one(machine: Machine, first: str, second: str) -> None:
    machine.write(first, "A=first\n")
    machine.write(second, "A=second\nB=second\n")
    assert machine.load() == {"A": "first", "B": "second"}


def test_a_variable_that_is_set_is_never_replaced_even_where_it_is_empty(machine: Machine) -> None:
    machine.write("cwd/.env", "A=file\nB=file\nC=file\n")
    assert machine.load({"A": "process", "B": ""}) == {"A": "process", "B": "", "C": "file"}


def test_quotes_comments_export_and_references_are_understood(machine: Machine) -> None:
    machine.write(
        "cwd/.env",
        "# the node\nexport A=one # trailing\nB=\"two words\"\nC='$three'\n"
        "D=${A}-${HOST}-${NONE:-none}\nE=\nF\n",
    )
    loaded = machine.load({"HOST": "gpu-1"})
    assert loaded == {
        "HOST": "gpu-1",
        "A": "one",
        "B": "two words",
        "C": "$three",
        "D": "one-gpu-1-none",
        "E": "",
    }
    assert machine.warnings == []


def test_a_line_that_is_no_assignment_is_warned_about_and_the_rest_is_read(machine: Machine) -> None:
    machine.write("cwd/.env", "A=1\nthis is no assignment\nB=2\n")
    assert machine.load() == {"A": "1", "B": "2"}
    (warning,) = machine.warnings
    assert warning == f"{machine.root / 'cwd/.env'} line 2 is left out, it is not NAME=value"


def test_windows_line_ends_and_byte_order_marks_are_no_part_of_the_values(machine: Machine) -> None:
    machine.write("cwd/.env", "\ufeffA=1\r\nB=2\r\n")
    assert machine.load() == {"A": "1", "B": "2"}


def test_a_file_that_is_no_text_is_warned_about_and_left_out(machine: Machine) -> None:
    (machine.root / "cwd").mkdir()
    (machine.root / "cwd/.env").write_bytes(b"A=\xff\xfe\n")
    machine.write("cwd/localai.env", "B=2\n")
    assert machine.load() == {"B": "2"}
    (warning,) = machine.warnings
    assert f"{machine.root / 'cwd/.env'} is left out, it cannot be read: " in warning


def test_a_file_that_cannot_be_read_is_warned_about(machine: Machine) -> None:
    (machine.root / "cwd").mkdir()
    (machine.root / "cwd/.env").symlink_to(".env")  # a loop: unreadable for root too
    assert machine.load() == {}
    (warning,) = machine.warnings
    assert ".env is left out, it cannot be read: " in warning


def test_a_virtual_environment_called_dot_env_is_no_file(machine: Machine) -> None:
    (machine.root / "cwd/.env/bin").mkdir(parents=True)
    assert (machine.load(), machine.warnings) == ({}, [])
