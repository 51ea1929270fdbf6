"""Whatever one side writes, the other reads back, and the bytes are JSON that Go would have written."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localai_worker.domain import messages
from localai_worker.domain.messages import (
    backend,
    backend_list,
    backend_progress,
    files,
    model,
    node_status,
    registration,
)
from localai_worker.domain.messages.wire import WireObject

from .catalogue import EVERY_KIND, MESSAGES

ROWS_INSIDE = {"NodeBackendInfo", "RunningModel"}


def test_the_catalogue_names_every_message_of_the_package() -> None:
    modules = (backend, backend_list, backend_progress, files, model, node_status, registration)
    declared = {
        name
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, WireObject)
        and value.__module__.startswith(messages.__name__)
        and not name.startswith("_")
        and value is not WireObject
    }
    assert declared - ROWS_INSIDE == {kind.__name__ for kind in EVERY_KIND}


@pytest.mark.parametrize("kind", EVERY_KIND)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_message_survives_the_wire(kind: type[WireObject], data: st.DataObject) -> None:
    message = data.draw(MESSAGES[kind])
    wire = message.to_wire()
    assert kind.from_wire(wire) == message
    assert kind.from_wire(wire).to_wire() == wire
    assert_is_compact_go_json(wire)


def assert_is_compact_go_json(wire: bytes) -> None:
    text = wire.decode("utf-8", "strict")
    assert not re.search("[<>&\u2028\u2029]", text)
    outside_strings = re.sub(r'"(?:[^"\\]|\\.)*"', "", text)
    assert not re.search(r"\s", outside_strings)
    json.loads(text)
