"""Which dataflows a cache's kernels can have: what is refused, and that the rest can be rendered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from caches import make_problem

from vqcc.passes.cache.dataflow import CACHE_DATAFLOWS, KEY_ORDERS, cache_refusals

if TYPE_CHECKING:
    from vqcc.levels import Dataflow

GROUPED = {"q_heads": 8, "head_dim": 128}
REFUSED: dict[str, tuple[str, tuple[str, ...], dict[str, Any], str]] = {
    "score, rotated keys": ("score", ("cq-2",), {"rope": "half"}, "rotated after decoding"),
    "score, two stages": ("score", ("kv-4-8-2",), {}, "one code of 8 bits"),
    "score, wide codes": ("score", ("kv-4-10-1",), {}, "one code of 8 bits"),
    "score, only values": ("score", ("cq-2", "kv-4-10-1"), {}, "values are looked up by one code"),
    "score, odd vectors": ("score", ("kv-1-8-1",), {}, "vectors of 1 channels"),
    "fragment, one row": ("fragment", ("cq-2",), {"head_dim": 128}, "of four rows"),
    "fragment, rotated keys of two stages": (
        "fragment",
        ("kv-4-8-2",),
        {"rope": "half"},
        "one code of 8 bits",
    ),
    "fragment, a large head": ("fragment", ("cq-2",), {**GROUPED, "head_dim": 256}, "more than a row of 256"),
    "fragment, few groups of keys": ("fragment", ("kv-16-8-1", "cq-2"), GROUPED, "no 4 turns"),
    "fragment, few groups of values": ("fragment", ("cq-2", "cq-1"), GROUPED, "16 channel groups for the 32"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    dataflow, algorithms, op, reason = REFUSED[name]
    found = list(cache_refusals(make_problem(*algorithms, **op), dataflow))  # type: ignore[arg-type]
    assert any(reason in each for each in found), found


@pytest.mark.parametrize("algorithm", ["cq-2", "cq-4", "kv-4-8-1"])
@pytest.mark.parametrize("dataflow", CACHE_DATAFLOWS)
def test_the_issue_of_grouped_queries_has_them_all(algorithm: str, dataflow: Dataflow) -> None:
    assert not list(cache_refusals(make_problem(algorithm, **GROUPED), dataflow))


@pytest.mark.parametrize("rope", ["half", "interleaved"])
def test_tensor_cores_take_rotated_keys_of_one_row_too(rope: str) -> None:
    """Where no table serves, three idle rows of four are no matter."""
    assert not list(cache_refusals(make_problem("cq-2", head_dim=128, rope=rope), "fragment"))


def test_kernels_that_decode_take_anything() -> None:
    problem = make_problem("kv-1-8-1", "kv-16-12-2", rope="interleaved")
    assert not list(cache_refusals(problem, "decode"))
    assert list(cache_refusals(problem, "bucket")), "which attention has not"


def test_every_dataflow_has_an_order_of_keys() -> None:
    assert set(KEY_ORDERS) == set(CACHE_DATAFLOWS)
