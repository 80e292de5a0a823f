"""A generated sequence: real keys and values are appended token by token, and each token attends to all before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from cache_libraries import fake_cache_library
from safetensors.numpy import load_file

from vqcc.ops.attention.reference import attend, rotate
from vqcc.tensors.cache_learning import quantize_cache
from vqcc.verify.backends import EmulatorBackend
from vqcc.verify.cache_cases import strides_of
from vqcc.verify.cache_tolerance import compare_bytes, compare_log_sums, compare_outputs
from vqcc.verify.host_cache import draw_cache

if TYPE_CHECKING:
    from pathlib import Path

TOKENS, PROMPT = 200, 23
#: Of the tokens after the prompt, every so many attend.
EVERY = 16


def real_heads(path: Path) -> dict[str, np.ndarray]:
    """Queries, keys and values [2 heads, 512, 64] of a trained model: pairs of its heads of 32 channels."""
    real = load_file(path)
    return {
        side: real[f"layer.3.{side}"][:4]
        .reshape(2, 2, 512, 32)
        .transpose(0, 2, 1, 3)
        .reshape(2, 512, 64)
        .copy()
        for side in ("query", "key", "value")
    }


@pytest.mark.parametrize(
    ("algorithm", "op"),
    [
        ("cq-2", {"level": "best", "page_size": 32, "window": 16}),
        ("cq-2", {"level": "o2", "rope": "half"}),
        ({"key": "cq-4", "value": "kv-4-8-1"}, {"level": "best"}),
    ],
)
def test_generation(
    tmp_path: Path, cache_directory: Path, real_activations: Path, algorithm: Any, op: dict[str, Any]
) -> None:
    library = fake_cache_library(tmp_path, algorithm, q_heads=2, batch=1, **op)
    real = real_heads(real_activations)
    tensors = (
        quantize_cache(real["key"], "key", library.keys),
        quantize_cache(real["value"], "value", library.values),
    )
    runner = EmulatorBackend(cache_directory / "emulator").load(library, "h200")
    build, books = library.builds["h200"], library.pack(*tensors).arrays()
    own_books = {**books, "key_books": books["append_key_books"], "value_books": books["append_value_books"]}
    workspace = np.zeros(build.workspace_bytes, np.uint8)
    (kernel,), appends = build.kernels, {each.single: each for each in build.appends}
    rng = np.random.default_rng(0)
    cache = draw_cache(rng, library.layout, library.op.window, np.float16, tensors, [0], TOKENS)
    arrays = {"pages": cache.pages.view(np.uint8).copy()}
    if library.op.window:
        arrays |= {"key_window": cache.key_window.copy(), "value_window": cache.value_window.copy()}
    table = {} if cache.table is None else {"page_table": cache.table}
    paging = {
        "page_table_stride": 0 if cache.table is None else cache.table.shape[1],
        "page_blocks": cache.page_blocks,
    }
    start = 0
    while start < TOKENS:
        count = PROMPT if start == 0 else 1
        new = [
            np.ascontiguousarray(real[side][None, :, start : start + count].transpose(0, 2, 1, 3))
            for side in ("key", "value")
        ]
        cache = cache.appended(tensors, (new[0], new[1]), [count])
        runner.run(
            appends[count == 1],
            {**own_books, **table, "keys": new[0], "values": new[1], "lengths": cache.lengths},
            arrays,
            {
                "batch": 1,
                "new_tokens": count,
                **paging,
                **strides_of("key", new[0]),
                **strides_of("value", new[1]),
            },
            workspace,
        )
        start += count
        if (start - PROMPT) % EVERY == 0 or start == TOKENS:
            assert compare_bytes(arrays["pages"], cache.pages).passed
            query = np.ascontiguousarray(real["query"][None, :, start - 1 : start].transpose(0, 2, 1, 3))
            outputs = {"outputs": np.zeros_like(query), "log_sums": np.zeros((1, 1, 2), np.float32)}
            scalars = {"batch": 1, "query_tokens": 1, **paging, "softmax_scale": 0.125, "softcap": 0.0}
            scalars |= {**strides_of("q", query), **strides_of("out", query)}
            inputs = {**books, **table, **arrays, "queries": query, "lengths": cache.lengths}
            runner.run(kernel, inputs, outputs, scalars, workspace)
            keys = rotate(cache.decoded(tensors[0], 0, keys=True), np.arange(start), library.op.rope)
            exact = attend(query, [keys], [cache.decoded(tensors[1], 0, keys=False)], scale=0.125)
            assert compare_outputs(outputs["outputs"], exact, library, kernel, start).passed
            assert compare_log_sums(outputs["log_sums"], exact, library, kernel, start).passed
