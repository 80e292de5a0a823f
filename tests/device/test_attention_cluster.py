"""Attention by clusters on the emulator, against float64: scores by tables and by decoding, and every option."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from device.attention import Books, Case, attention_source, check, run_attention

from vqcc.emulator import build

if TYPE_CHECKING:
    from pathlib import Path

    from device.attention import Answer


def clustered(kernel: str, fields: dict[str, Any]) -> Case:
    """128 channels, rotated codes and a few clusters, unless `fields` say otherwise."""
    blocks = fields.get("cluster", 4)
    defaults = {"head_dim": 128, "key_order": "rotated", "grid": 3 * blocks, "chunk_blocks": 64}
    return Case(kernel=kernel, **{**defaults, **fields})


def scored(**fields: Any) -> Case:
    """A case for tables."""
    return clustered("cluster score", fields)


def decoding(**fields: Any) -> Case:
    """A case for the codebook cache."""
    return clustered("cluster decode", fields)


SCORE = {
    "two blocks": scored(cluster=2),
    "four blocks": scored(),
    "eight blocks": scored(cluster=8),
    "one cluster": scored(grid=4),
    "more clusters than work": scored(grid=32, lengths=(3, 0, 33)),
    "64 channels": scored(head_dim=64),
    "a large head": scored(head_dim=256),
    "a large head, two blocks": scored(head_dim=256, cluster=2, grid=6),
    "64 groups": scored(keys=Books(2), values=Books(2)),
    "64 groups, two blocks": scored(keys=Books(2), values=Books(2), cluster=2),
    "64 groups, four rows": scored(keys=Books(2), values=Books(2), cluster=2, query_heads=8, rows=4),
    "16 groups of 8": scored(keys=Books(8), values=Books(8)),
    "values of 16": scored(values=Books(16), cluster=2),
    "different sizes": scored(head_dim=256, keys=Books(4), values=Books(8), cluster=8),
    "sets of groups": scored(head_dim=256, keys=Books(2), values=Books(2), cluster=2, warps=8),
    "two rows": scored(query_heads=4, rows=2),
    "four rows": scored(query_heads=8, rows=4),
    "eight rows": scored(query_heads=16, rows=8, warps=2, chunk_blocks=16),
    "eight rows, two blocks": scored(query_heads=16, rows=8, cluster=2, chunk_blocks=16),
    "sets of rows": scored(query_heads=12, rows=2, row_sets=3),
    "one book, pages": scored(
        keys=Books(scope="layer"), values=Books(scope="layer"), query_heads=8, rows=4, page_tokens=64
    ),
    "a window, two query tokens": scored(window=40, query_tokens=2, rows=2, lengths=(70, 0, 33, 41)),
    "a window longer than sequences": scored(window=256, lengths=(70, 3, 255), cluster=2),
    "a sliding window, capped": scored(sliding_window=30, softcap=4.0, lengths=(200, 1, 64)),
    "a sliding window inside the window": scored(sliding_window=4, window=40, lengths=(170, 3, 44)),
    "bfloat16": scored(dtype="bfloat16", window=8),
    "many chunks": scored(lengths=(1500, 2, 700), chunk_blocks=32),
    "many chunks of many sequences": scored(lengths=(300, 2, 700, 0, 513, 128), chunk_blocks=32, cluster=2),
    "deep": scored(lengths=(900, 2, 700), chunk_blocks=96, depths=(3, 3)),
    "not deep": scored(lengths=(300, 2, 700), chunk_blocks=8, depths=(1, 1), warps=2),
}
DECODE = {
    "two blocks": decoding(cluster=2),
    "four blocks": decoding(),
    "eight blocks": decoding(cluster=8, key_order="plain"),
    "books in shared memory": decoding(shared_entries=(256, 100)),
    "four heads share a cache": decoding(query_heads=8, rows=4, shared_entries=(64, 256)),
    "three query tokens": decoding(query_heads=8, rows=4, row_sets=3, query_tokens=3, lengths=(70, 0, 2)),
    "a window": decoding(window=40, key_order="plain"),
    "rotated halves": decoding(rope="half", lengths=(70, 5, 300), key_order="plain"),
    "rotated neighbours": decoding(rope="interleaved", lengths=(70, 5, 200), window=16),
    "pages": decoding(page_tokens=64, lengths=(170, 0, 33)),
    "a sliding window": decoding(sliding_window=20, window=8, lengths=(170, 3, 33), query_tokens=2, rows=2),
    "capped scores": decoding(softcap=5.0),
    "bfloat16": decoding(dtype="bfloat16", window=8),
    "codes that fill no words": decoding(keys=Books(4, 5), values=Books(4, 7)),
    "codes that fill no words, plain": decoding(
        keys=Books(8, 5, 1, "layer"), values=Books(8, 3), key_order="plain"
    ),
    "one group a block": decoding(
        chunk_blocks=128, keys=Books(16, 5), values=Books(16, 10, 2, "layer"), cluster=8, lengths=(70, 1)
    ),
    "different algorithms": decoding(keys=Books(2, scope="head"), values=Books(8, 10, 2, "layer")),
    "wide vectors": decoding(chunk_blocks=64, keys=Books(16, 12, 1, "layer"), values=Books(16, 5)),
    "a large head": decoding(
        head_dim=256, keys=Books(8), lengths=(40, 1, 9), rope="half", cluster=8, key_order="plain"
    ),
    "64 channels": decoding(head_dim=64, cluster=8, shared_entries=(256, 256)),
    "many chunks": decoding(lengths=(1500, 2, 700), chunk_blocks=32, shared_entries=(256, 256)),
}


def answer_of(case: Case, cache_directory: Path, *, count: bool = False) -> Answer:
    emulated = build(attention_source(case), cache_directory=cache_directory / "emulator")
    return run_attention(case, emulated, count=count)


@pytest.mark.parametrize("name", SCORE)
def test_scored(name: str, cache_directory: Path) -> None:
    check(SCORE[name], answer_of(SCORE[name], cache_directory))


@pytest.mark.parametrize("name", DECODE)
def test_decoded(name: str, cache_directory: Path) -> None:
    check(DECODE[name], answer_of(DECODE[name], cache_directory))
