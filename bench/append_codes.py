"""Codes that kernels append on this machine's GPU, against the NumPy reference, over a large random set.

    python bench/append_codes.py --gpu h200 -o bench/results/h200/append-codes.json

One launch appends a whole context to empty sequences, of keys and values drawn from a normal distribution, of few
distinct values (so that entries tie), and of wide range; every byte of the token blocks must be the reference's.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gemv_levels import add_common, document_of, save_document

from vqcc.building import build_library, write_library
from vqcc.cache_layouts import BLOCK_TOKENS
from vqcc.codegen.toolchain import find
from vqcc.library import load_cache_library
from vqcc.runtime.backend import CudaBackend, gpus_for
from vqcc.runtime.device import open_device
from vqcc.spec.load import parse_spec
from vqcc.tensors.cache_codes import nearest_codes, pack_token_blocks
from vqcc.tensors.vq_tensor import numpy_dtype
from vqcc.verify.cache_cases import strides_of
from vqcc.verify.cache_harness import random_sides

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from vqcc.cache_library import CacheLibrary
    from vqcc.runtime.device import Device
    from vqcc.tensors.cache_tensor import CacheTensor

PRESETS = ("cq-2", "cq-4", "cq-1", "kv-4-8-1", "kv-4-6-2", "{key: cq-4, value: kv-8-8-1}")
DTYPES = ("float16", "bfloat16")
HEADS, HEAD_DIM, SEQUENCES, CONTEXT = 8, 128, 2, 2048
DRAWS = ("normal", "tied", "wide")


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    options = add_common(parser, output=Path("append-codes.json")).parse_args()
    rows = []
    with open_device() as device:
        for preset in PRESETS:
            for row in compare(preset, options, device):
                rows.append(row)
                print(row, flush=True)
        document = document_of(rows, device, "append_codes", "", options)
    save_document(document, options)
    if any(row["different"] for row in rows):
        sys.exit(4)


def compare(preset: str, options: argparse.Namespace, device: Device) -> Iterator[dict[str, Any]]:
    """A row for each type and draw of a preset."""
    spec = (
        f"vqcc: 1\nname: append-codes\nalgorithm: {preset}\nop: {{kind: attention_decode, q_heads: {HEADS}, "
        f"kv_heads: {HEADS}, head_dim: {HEAD_DIM}, batch: {SEQUENCES}, context: {CONTEXT}, "
        f"dtype: [{', '.join(DTYPES)}]}}\ngpu: {options.gpu}\n"
    )
    built = build_library(parse_spec(spec.encode(), preset), toolchain=find("nvrtc"), cache=None)
    path = Path("out") / "append-codes" / built.name
    write_library(built, path)
    library = load_cache_library(path)
    rng = np.random.default_rng(0)
    sides = random_sides(library, rng)
    for dtype in DTYPES:
        for draw in DRAWS:
            keys, values = (drawn(rng, draw, side).astype(numpy_dtype(dtype)) for side in sides)
            written = appended(library, device, dtype, sides, keys, values)
            wanted = pack_token_blocks(reference(sides[0], keys), reference(sides[1], values), library.layout)
            yield {
                "op": "kv_append",
                "algorithm": preset,
                "dtype": dtype,
                "draw": draw,
                "vectors": sum(keys.size // side.algorithm.vector_size for side in sides),
                "different": int(np.count_nonzero(written != wanted.reshape(written.shape))),
            }


def drawn(rng: np.random.Generator, draw: str, side: CacheTensor) -> NDArray[np.float32]:
    """Vectors [sequences, tokens, heads, channels]."""
    shape = (SEQUENCES, CONTEXT, HEADS, HEAD_DIM)
    if draw == "tied":  # halfway between entries of a book, or on them
        size = side.algorithm.vector_size
        book = side.book_of(0, 0)[0].astype(np.float32)
        pairs = rng.integers(0, len(book), (2, *shape[:-1], HEAD_DIM // size))
        return (0.5 * (book[pairs[0]] + book[pairs[1]])).reshape(shape)
    normal = rng.standard_normal(shape, dtype=np.float32)
    return normal if draw == "normal" else normal * np.exp2(rng.integers(-20, 15, shape)).astype(np.float32)


def reference(side: CacheTensor, vectors: NDArray[Any]) -> NDArray[np.uint16]:
    """Codes [sequences, heads, tokens, groups, stages] by NumPy."""
    size = side.algorithm.vector_size
    grouped = vectors.reshape(*vectors.shape[:-1], -1, size).transpose(0, 2, 1, 3, 4)

    def of_head(head: int) -> NDArray[np.uint16]:
        groups = range(grouped.shape[3])
        return np.stack(
            [nearest_codes(grouped[:, head, :, group], side.book_of(head, group)) for group in groups], axis=2
        )

    with ThreadPoolExecutor(HEADS) as pool:
        return np.stack(list(pool.map(of_head, range(HEADS))), axis=1)


def appended(
    library: CacheLibrary,
    device: Device,
    dtype: str,
    sides: tuple[CacheTensor, CacheTensor],
    keys: NDArray[Any],
    values: NDArray[Any],
) -> NDArray[np.uint32]:
    """The token blocks that one launch leaves of empty sequences."""
    (gpu,) = gpus_for(library, device)
    (kernel,) = (
        each for each in library.builds[gpu].appends if not each.single and each.variant.dtype == dtype
    )
    runner = CudaBackend(device).load(library, gpu)
    books = library.pack(*sides).arrays()
    blocks = CONTEXT // BLOCK_TOKENS
    pages = np.zeros((SEQUENCES, HEADS, blocks, library.layout.block_bytes // 4), np.uint32)
    full = np.full(SEQUENCES, CONTEXT, np.int32)
    inputs = {
        **books,
        "key_books": books["append_key_books"],
        "value_books": books["append_value_books"],
        "keys": keys,
        "values": values,
        "lengths": full,
        "counts": full,
    }
    outputs = {"pages": pages.view(np.uint8)}
    scalars: dict[str, float] = {
        "batch": SEQUENCES,
        "new_tokens": CONTEXT,
        "page_table_stride": 0,
        "page_blocks": blocks,
        **strides_of("key", keys),
        **strides_of("value", values),
    }
    runner.run(kernel, inputs, outputs, scalars, np.zeros(0, np.uint8))
    return pages


if __name__ == "__main__":
    main()
