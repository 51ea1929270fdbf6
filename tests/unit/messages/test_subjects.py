"""The subjects of a node."""

from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localai_worker.domain.messages.subjects import NodeSubjects, sanitise_token

from .goldens import nats_exchanges

NODE_ID = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
TAILS = {
    "install": "backend.install",
    "upgrade": "backend.upgrade",
    "stop": "backend.stop",
    "delete": "backend.delete",
    "list": "backend.list",
    "model_unload": "model.unload",
    "model_stop": "model.stop",
    "model_delete": "model.delete",
    "models_running": "models.running",
    "node_stop": "stop",
    "files_ensure": "files.ensure",
    "files_stage": "files.stage",
    "files_temp": "files.temp",
    "files_listdir": "files.listdir",
}


def subject_of(subjects: NodeSubjects, name: str) -> str:
    return cast("str", getattr(subjects, name))


@pytest.mark.parametrize("name", TAILS)
def test_a_subject_is_the_nodes_and_ends_as_the_frontend_spells_it(name: str) -> None:
    assert subject_of(NodeSubjects(NODE_ID), name) == f"nodes.{NODE_ID}.{TAILS[name]}"


def test_every_property_has_its_spelling_here() -> None:
    assert {n for n, v in vars(NodeSubjects).items() if isinstance(v, property)} == set(TAILS)


def test_the_goldens_use_no_other_subject() -> None:
    subjects = NodeSubjects(NODE_ID)
    ours = {subject_of(subjects, name) for name in TAILS}
    ours.add(subjects.install_progress("0b7f2c4e-6a57-11f0-9d0a-0242ac120002"))
    assert {exchange.subject for exchange in nats_exchanges()} <= ours


def test_what_would_split_or_widen_a_subject_becomes_a_dash_one_for_one() -> None:
    assert sanitise_token("a.b*c>d e\tf\ng\rh") == "a-b-c-d-e-f-g\rh"
    assert sanitise_token("") == ""
    assert NodeSubjects("n.1").install_progress("op *") == "nodes.n-1.backend.install.op--.progress"


@settings(deadline=None)
@given(node_id=st.text(), op_id=st.text())
def test_no_id_can_add_or_widen_a_token(node_id: str, op_id: str) -> None:
    subject = NodeSubjects(node_id).install_progress(op_id)
    assert subject.count(".") == 5
    assert not set(subject) & set("*> \t\n")
