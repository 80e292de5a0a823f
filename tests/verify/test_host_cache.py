"""The reference of kernels that append: one token at a time or many, into pages or none, with a window or without."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqcc.algorithms.presets import resolve
from vqcc.ops.attention.model import AttentionDecode
from vqcc.tensors.cache_codes import unpack_token_blocks
from vqcc.tensors.cache_random import random_cache_tensor
from vqcc.verify.host_cache import GARBAGE, draw_cache, encode


def sides(*names: str, tokens: int = 1) -> Any:
    rng = np.random.default_rng(1)
    return tuple(random_cache_tensor(rng, name, resolve(name), 2, 64, tokens) for name in names)


def layout_of(names: tuple[str, str], order: Any = "plain", page_size: int = 0) -> Any:
    op = AttentionDecode(
        kind="attention_decode", q_heads=2, kv_heads=2, head_dim=64, batch=4, context=512, page_size=page_size
    )
    return op.layout(resolve(names[0]), resolve(names[1]), order)


@settings(max_examples=30, deadline=None)
@given(
    order=st.sampled_from(["plain", "rotated", "fragment"]),
    page_size=st.sampled_from([0, 32, 64]),
    window=st.sampled_from([0, 1, 5, 40]),
    held=st.lists(st.integers(0, 70), min_size=1, max_size=3),
    counts=st.data(),
)
def test_tokens_one_by_one_or_all_at_once(
    order: Any, page_size: int, window: int, held: list[int], counts: Any
) -> None:
    rng = np.random.default_rng(0)
    names = ("cq-2", "cq-4") if order != "fragment" else ("cq-2", "cq-2")
    tensors = sides(*names)
    new = counts.draw(st.lists(st.integers(0, 6), min_size=len(held), max_size=len(held)))
    cache = draw_cache(rng, layout_of(names, order, page_size), window, np.float16, tensors, held, 96)
    tokens = [rng.standard_normal((len(held), 6, 2, 64)).astype(np.float16) for _ in "kv"]
    at_once = cache.appended(tensors, (tokens[0], tokens[1]), new)
    stepwise = cache
    for number in range(6):
        one = [int(number < count) for count in new]
        stepwise = stepwise.appended(tensors, (tokens[0][:, number:], tokens[1][:, number:]), one)
    assert at_once.pages.tobytes() == stepwise.pages.tobytes()
    for name in ("key_window", "value_window", "key_codes", "value_codes", "lengths"):
        assert (getattr(at_once, name) == getattr(stepwise, name)).all()
    assert (at_once.lengths == np.array(held) + np.array(new)).all()


def test_what_lies_where() -> None:
    """Codes at a token's place in its block, zeros behind the last, garbage in blocks that no token has."""
    names = ("cq-2", "cq-2")
    tensors = sides(*names)
    rng = np.random.default_rng(0)
    cache = draw_cache(rng, layout_of(names, page_size=32), 3, np.float16, tensors, [40, 0], 96)
    assert cache.table is not None
    assert cache.pages.shape[:3] == (2 * 3 + 2, 2, 1)
    first, second, third = (cache.pages[number, :, 0] for number in cache.table[0])
    keys, _ = unpack_token_blocks(np.stack([first, second], axis=1), cache.layout)
    assert (keys[:, :37] == cache.key_codes[0, :, :37]).all()
    assert not keys[:, 37:].any()
    assert (third == GARBAGE).all()
    untouched = [number for number in range(len(cache.pages)) if number not in cache.table[0][:2]]
    assert (cache.pages[untouched] == GARBAGE).all()


def test_decoded_tokens_come_from_codes_then_from_the_window() -> None:
    names = ("cq-2", "cq-4")
    keys, values = sides(*names)
    rng = np.random.default_rng(0)
    cache = draw_cache(rng, layout_of(names), 4, np.float16, (keys, values), [10], 32)
    decoded = cache.decoded(keys, 0, keys=True)
    assert decoded.shape == (2, 10, 64)
    codes = cache.key_codes[0, 1, 2]
    entries = [keys.book_of(1, group)[0][codes[group, 0]] for group in range(16)]
    np.testing.assert_array_equal(decoded[1, 2], np.concatenate(entries).astype(np.float64))
    np.testing.assert_array_equal(decoded[1, 9], cache.key_window[0, 1, 9 % 4].astype(np.float64))
    assert cache.decoded(values, 0, keys=False).shape == (2, 10, 64)


@pytest.mark.parametrize("name", ["cq-2", "cq-4", "kv-4-8-1", "kv-8-6-2"])
def test_entries_encode_to_themselves(name: str) -> None:
    (tensor,) = sides(name)
    one = replace(tensor, codes=tensor.codes)
    vectors = one.decode()[0, :, 0].astype(np.float16)
    if tensor.algorithm.residuals == 1:
        assert (encode(tensor, vectors) == tensor.codes[0, :, 0]).all()
    again = replace(tensor, codes=encode(tensor, vectors)[None, :, None])
    assert np.abs(again.decode()[0, :, 0] - vectors).max() <= np.abs(vectors).max()
