"""Keys in the order of the yaml.v3 package."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.domain.yaml_order import in_yaml_order

# Written by gopkg.in/yaml.v3 v3.0.1.
RECORDED = [
    ["k--0", "k-0", "k.", "k0", "k2 ", "k2 B", "k1122", "kB-z_2", "kBz", "kz.9", "kéz"],
    ["k a2", "k.~", "k_9B ", "k~..2é", "k1zz", "k2.-", "k019", "k21éB", "kB~", "ké", "ké.29", "ké~1B "],
    ["k.", "k. ", "k._0", "k0", "k1B z", "k11", "k22a", "kB_", "kBB~a2", "kz", "kéé2"],
    ["k B0a", "k.11 ", "k.zz1~", "k_...", "k_0-é1", "k~z~", "k0", "k1", "k2-", "k9z", "k11 ", "ké"],
    ["k--z-1", "k-900.", "k.z.9", "k0az9-", "k00", "k1", "k12", "kB1z", "ka10_", "kz0", "kz0B", "ké21z "],
    ["k ", "k _", "k_ 1a0", "k_B_1", "k~", "k~é90_", "k0~", "k2a2", "k2-~", "k91.99", "ka", "kz"],
]


@pytest.mark.parametrize("keys", RECORDED, ids=range(len(RECORDED)))
def test_keys_are_sorted_as_they_were_recorded(keys: list[str]) -> None:
    """M-4.1.4."""
    assert in_yaml_order(reversed(keys)) == keys
    assert in_yaml_order(sorted(keys)) == keys


@pytest.mark.parametrize(
    "keys",
    [
        ["name", "parameters"],
        ["step_2", "step_10"],
        ["a1", "a1b", "a1_"],
        ["a_", "ab"],
        ["k" + "9" * 4999, "k1" + "0" * 5000],
        [],
    ],
    ids=["words", "numbers", "behind a digit", "letters last", "long", "none"],
)
def test_numbers_go_by_value_and_letters_last(keys: list[str]) -> None:
    """M-4.1.4."""
    assert in_yaml_order(reversed(keys)) == keys


@given(st.lists(st.text(max_size=8), max_size=8))
def test_no_key_is_lost(keys: list[str]) -> None:
    assert sorted(in_yaml_order(keys)) == sorted(keys)
