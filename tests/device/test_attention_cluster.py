"""Attention by clusters on the emulator, against float64: scores by tables and by decoding, and every option."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from device.attention import Books, Case, attention_source, check, counted, run_attention
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sampling import every_other

from vqcc.emulator import build

if TYPE_CHECKING:
    from pathlib import Path

    from device.attention import Answer, Fusion


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


#: Of 32 groups a block and more, and of fewer.
EXCHANGED = {
    "one group a lane": decoding(values=Books(2), cluster=2),
    "two groups a lane": decoding(values=Books(2), cluster=2, head_dim=256, lengths=(40, 1, 129)),
    "two teams": decoding(cluster=2, lengths=(300, 0, 1, 33, 64)),
    "four teams": decoding(lengths=(300, 0, 1, 33, 64)),
    "four teams of wide vectors": decoding(values=Books(8), cluster=2, shared_entries=(64, 256)),
    "eight teams": decoding(cluster=8, key_order="plain"),
    "eight teams of wide vectors": decoding(values=Books(8), lengths=(170, 0, 33)),
    "sixteen teams": decoding(values=Books(16, 5), keys=Books(4), lengths=(170, 1, 33), chunk_blocks=64),
    "residual stages": decoding(values=Books(8, 10, 2, "layer"), keys=Books(2, scope="head")),
    "a window": decoding(window=40, key_order="plain", lengths=(170, 3, 44, 41)),
    "rotated neighbours": decoding(rope="interleaved", lengths=(70, 5, 200), window=16, values=Books(8)),
    "pages": decoding(page_tokens=64, lengths=(170, 0, 33)),
    "a sliding window": decoding(sliding_window=20, window=8, lengths=(170, 3, 33), query_tokens=2, rows=2),
    "four heads share a cache": decoding(query_heads=8, rows=4, values=Books(8), dtype="bfloat16"),
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


@pytest.mark.parametrize(("name", "fusion"), every_other(EXCHANGED, ("register", "shared")))
def test_an_exchange_changes_no_bit(name: str, fusion: Fusion, cache_directory: Path) -> None:
    """Each sum has the same terms in the same order, whichever lane has it."""
    case = replace(EXCHANGED[name], fusion=fusion)
    answer, unexchanged = (answer_of(each, cache_directory) for each in (case, replace(case, fusion="none")))
    check(case, answer)
    np.testing.assert_array_equal(answer.outputs, unexchanged.outputs)
    np.testing.assert_array_equal(answer.log_sums, unexchanged.log_sums)


def test_both_give_the_same_as_one_block_does(cache_directory: Path) -> None:
    """One layout serves them all; how many blocks share a head changes the order of a score's sum alone."""
    whole = Case(head_dim=128, key_order="rotated", lengths=(300, 2, 77))
    answers = [
        answer_of(replace(case, lengths=whole.lengths), cache_directory)
        for case in (whole, decoding(), decoding(cluster=8), scored(), scored(cluster=2))
    ]
    for answer in answers:
        np.testing.assert_array_equal(answer.exact.outputs, answers[0].exact.outputs)
    assert max(np.abs(answer.outputs - answers[0].outputs).max() for answer in answers) < 4e-3
    assert np.abs(answers[1].outputs - answers[0].outputs).max() < 1e-3


@pytest.mark.parametrize(("cluster", "size", "rows"), every_other((2, 4), (2, 4), (1, 2, 4)))
def test_no_two_lanes_meet_in_a_bank(cluster: int, size: int, rows: int, cache_directory: Path) -> None:
    """A token's look-ups in a head of 128 channels, over all blocks: keys, values, weights, scores."""
    books = Books(size)
    case = scored(
        heads=1, query_heads=rows, rows=rows, cluster=cluster, grid=cluster, warps=8, keys=books, values=books
    )
    more, _ = counted(case, cache_directory)
    assert more["shared_load_wavefronts"] == more["shared_load_ideal"]
    assert more["shared_store_wavefronts"] == more["shared_store_ideal"]
    groups = 128 // size
    keys = groups / 32 * (2 if rows == 4 else 1)
    values = groups / 32 * (size / 2)
    # 16 bytes of one address count as four; a lane has them for its groups, each block anew.
    weights = groups / 32 * rows / 2
    exchanged = cluster * cluster * rows / 32
    assert more["shared_load_wavefronts"] == keys + values + weights + exchanged
    assert more["remote_store_bytes"] == cluster * (cluster - 1) * rows * 4
    assert more["remote_loads"] == 0


def test_one_codebook_meets_in_no_bank_either(cache_directory: Path) -> None:
    """Copies of one book are as good as books of each group."""
    one = Books(4, scope="layer")
    case = scored(heads=1, query_heads=1, keys=one, values=one, grid=4, warps=8)
    more, launch = counted(case, cache_directory)
    assert more["shared_load_wavefronts"] == more["shared_load_ideal"] == 1 + 2 + 0.5 + 0.5
    assert launch.shared_load_wavefronts == launch.shared_load_ideal


def test_few_lanes_of_a_team_meet_at_the_weights_of_two(cache_directory: Path) -> None:
    """Of eight blocks, four lanes have a token block: two teams read 16 bytes of weights at once, 128 bytes apart."""
    case = scored(heads=1, query_heads=2, rows=2, cluster=8, grid=8, warps=8)
    more, _ = counted(case, cache_directory)
    weights = 2 / 2
    assert more["shared_load_wavefronts"] == more["shared_load_ideal"] + weights


@pytest.mark.parametrize(("cluster", "sectors"), [(2, 2), (4, 3), (8, 5)])
def test_sectors_of_codes(cluster: int, sectors: int, cache_directory: Path) -> None:
    """Two sectors hold a token's codes. Of four blocks each reads half of its sectors of keys, of eight a quarter."""
    more, _ = counted(scored(heads=1, query_heads=1, cluster=cluster, grid=cluster, warps=8), cache_directory)
    assert more["global_load_sectors"] == sectors
    assert more["global_load_bytes"] == 64


def test_barriers_of_a_unit(cache_directory: Path) -> None:
    """One of the cluster until it has begun, one for scores; three of a block: tables, and two to merge its warps."""
    case = scored(heads=1, query_heads=1, grid=4, warps=8)
    emulated = build(attention_source(case), cache_directory=cache_directory / "emulator")
    one = run_attention(replace(case, lengths=(900,)), emulated, count=True).counters
    assert (one.cluster_barriers, one.block_barriers) == (2, 4 * 3)
    three = run_attention(replace(case, lengths=(900, 5, 70)), emulated, count=True).counters
    assert (three.cluster_barriers, three.block_barriers) == (3 * 2, 3 * 4 * 3)
    two_chunks = run_attention(replace(case, lengths=(2049,)), emulated, count=True).counters
    assert (two_chunks.cluster_barriers, two_chunks.block_barriers) == (2 * 2, 4 * 3)


#: Around the ends of token blocks, pages and chunks.
LENGTHS = st.sampled_from((0, 1, 2, 31, 32, 33, 63, 64, 65, 255, 256, 257)) | st.integers(0, 600)
BOOKS = st.builds(
    Books,
    st.sampled_from((2, 4, 8)),
    st.integers(3, 10),
    st.sampled_from((1, 1, 2)),
    st.sampled_from(("group", "head", "layer")),
)
ROW_BOOKS = st.builds(
    Books, st.sampled_from((2, 4, 8)), st.just(8), st.just(1), st.sampled_from(("group", "layer"))
)


@st.composite
def cases(draw: st.DrawFn, kernel: str) -> Case:
    """A problem that the kernel can have, in small chunks."""
    books = ROW_BOOKS if kernel == "cluster score" else BOOKS
    keys, values = draw(books), draw(books)
    head_dim = draw(st.sampled_from((64, 128, 128, 256)))
    least = 4 if kernel == "cluster score" else 1  # key groups of a block
    clusters = [
        n for n in (2, 4, 8) if head_dim // keys.size >= least * n and head_dim // values.size >= 2 * n
    ]
    cluster, warps, rows = (
        draw(st.sampled_from(clusters)),
        draw(st.sampled_from((1, 2, 4))),
        draw(st.sampled_from((1, 2, 4))),
    )
    heads, query_tokens = draw(st.integers(1, 3)), draw(st.sampled_from((1, 1, 2)))
    group_heads = draw(st.sampled_from((1, 2, 3, 4)))
    own_values = head_dim // values.size // cluster
    lanes = min(own_values, 128 // min(16, 2 * values.size) if kernel == "cluster score" else 32)
    depths = draw(st.sampled_from(((1, 1), (2, 1), (2, 2))))
    step = int(np.lcm(warps * depths[0], warps * (32 // lanes) * depths[1]))
    chunk = step * draw(st.integers(1, 2))
    assume(cluster * chunk * 32 * rows * 4 <= 1 << 19)  # partial scores in shared memory
    scored_keys = kernel == "cluster score"
    return clustered(
        kernel,
        {
            "keys": keys,
            "values": values,
            "head_dim": head_dim,
            "heads": heads,
            "query_heads": heads * group_heads,
            "query_tokens": query_tokens,
            "rows": rows,
            "row_sets": -(-group_heads * query_tokens // rows),
            "lengths": tuple(draw(st.lists(LENGTHS, min_size=1, max_size=4))),
            "window": draw(st.sampled_from((0, 0, 1, 8, 40, 256))),
            "sliding_window": draw(st.sampled_from((0, 0, 1, 20, 100))),
            "softcap": draw(st.sampled_from((0.0, 0.0, 5.0))),
            "page_tokens": draw(st.sampled_from((0, 32, 96))),
            "rope": "none" if scored_keys else draw(st.sampled_from(("none", "half", "interleaved"))),
            "key_order": "rotated" if scored_keys else draw(st.sampled_from(("plain", "rotated"))),
            "dtype": draw(st.sampled_from(("float16", "bfloat16"))),
            "cluster": cluster,
            "grid": cluster * draw(st.integers(1, 4)),
            "warps": warps,
            "chunk_blocks": chunk,
            "depths": depths,
            "fusion": "none" if scored_keys else draw(st.sampled_from(("none", "register", "shared"))),
            "shared_bytes": 1 << 20,
            "seed": draw(st.integers(0, 99)),
        },
    )


@pytest.mark.parametrize("kernel", ["cluster score", "cluster decode"])
def test_drawn(kernel: str, cache_directory: Path) -> None:
    @settings(max_examples=6)
    @given(cases(kernel))
    def attend(case: Case) -> None:
        check(case, answer_of(case, cache_directory))

    attend()


@pytest.mark.full
@pytest.mark.parametrize("kernel", ["cluster score", "cluster decode"])
def test_more_drawn(kernel: str, cache_directory: Path) -> None:
    @settings(max_examples=150)
    @given(cases(kernel))
    def attend(case: Case) -> None:
        check(case, answer_of(case, cache_directory))

    attend()
