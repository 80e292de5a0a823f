"""Holds what examples/engine dumped (--dump DIR) against float64: each step given its own inputs, and whole layers.

    python bench/engine_check.py DUMP --model out/decoder --gpu h200

Weights are decoded from the packed arrays by the documented layouts, the cache from its pages, so that both are part of
what is checked. Linear layers and attention over the cache have the bounds of `vqcc validate`, what is appended must be
right to the byte, and the engine's own kernels may be off by rounding. A whole layer, run in float64 from its input,
may differ by WHOLE_LAYER of the norm of what it adds to the residual. Exit code 4 if something is off.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from engine_dump import LINEAR, Dumped, Model

from vqcc.ops.attention.reference import attend, rotate
from vqcc.tensors.cache_codes import unpack_token_blocks
from vqcc.tensors.cache_tensor import CacheTensor
from vqcc.verify.cache_tolerance import compare_bytes, compare_outputs
from vqcc.verify.host_cache import HostCache
from vqcc.verify.tolerance import Comparison, compare, compare_within

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

#: Of the norm of what a layer adds to the residual: ten steps with roundings of 2^-11 each, some of them amplified.
WHOLE_LAYER = 1e-2
#: Roundings of float32 in the engine's own kernels, relative to their terms.
SINGLE = 2.0**-20


@dataclass(frozen=True)
class Found:
    """How a step of a layer compares."""

    layer: int
    step: str
    comparison: Comparison

    def __str__(self) -> str:
        found = self.comparison
        return (
            f"{'ok' if found.passed else 'OFF':4} layer {self.layer} {self.step:16} relative error"
            f" {found.relative_error:.2e} of {found.relative_limit:.2e}, worst element {found.worst:.3f} of its bound"
        )


class Check:
    """One layer of a dump."""

    def __init__(self, number: int, layer: Dumped, model: Model) -> None:
        self.number, self.layer, self.model = number, layer, model
        self.op = model.attention.op
        self.batch, self.new_tokens = layer.number("batch"), layer.number("new_tokens")
        self.prefill = layer.number("prefill") == 1
        self.lengths: NDArray[np.int32] = layer["lengths"]
        self.weights = {name: model.weight(layer, name) for name in LINEAR}

    def steps(self) -> Iterator[Found]:
        """Every step, then the layer as a whole."""
        layer = self.layer
        if "delta" in layer.arrays:
            yield self._own("attention_sum", layer.exact("residual") + layer.exact("delta"))
        yield self._own("attention_normed", self.normed(layer.exact("attention_sum"), "attention_norm"))
        yield self._linear("qkv", "attention_normed", "qkv")
        rotated = self.rotated(layer.exact("qkv"))
        yield self._own(
            "rotated", rotated.reshape(len(rotated), -1), SINGLE * np.abs(layer.exact("qkv")).max()
        )
        yield from self._appended()
        yield self._attended()
        yield self._linear("o", "attended", "projected")
        yield self._own("mlp_sum", layer.exact("attention_sum") + layer.exact("projected"))
        yield self._own("mlp_normed", self.normed(layer.exact("mlp_sum"), "mlp_norm"))
        yield self._linear("gate_up", "mlp_normed", "gate_up")
        activated = gated(layer.exact("gate_up"))
        yield self._own("activated", activated, SINGLE * np.abs(activated))
        yield self._linear("down", "activated", "down")
        yield self._whole()

    def normed(self, rows: Floats, weight: str) -> Floats:
        """RMSNorm."""
        squares = (rows**2).mean(axis=-1, keepdims=True)
        factors = self.layer.bytes_of(f"weight.{weight}", np.float16).astype(np.float64)
        normed: Floats = rows / np.sqrt(squares + float(self.layer.notes["epsilon"])) * factors
        return normed

    def parts(self, qkv: Floats) -> tuple[Floats, Floats, Floats]:
        """Queries, keys and values [rows, heads, head_dim]."""
        op = self.op
        heads = qkv.reshape(len(qkv), -1, op.head_dim)
        queries, keys, values = np.split(heads, [op.q_heads, op.q_heads + op.kv_heads], axis=1)
        return queries, keys, values

    def rotated(self, qkv: Floats) -> Floats:
        """Queries, and keys where the engine rotates them, [rows, heads, head_dim]."""
        op = self.op
        heads = op.q_heads + (op.kv_heads if self.prefill or op.rope == "none" else 0)
        own = np.moveaxis(qkv.reshape(len(qkv), -1, op.head_dim)[:, :heads], 1, 0)
        last = np.repeat(self.lengths, self.new_tokens) - self.new_tokens
        positions = last + np.tile(np.arange(self.new_tokens), self.batch)
        # A cache of rotated keys leaves base and pairs to the engine.
        rope = ("half", float(self.layer.notes["rope_base"]), 1.0)
        if op.rope != "none":
            rope = (op.rope, op.rope_base, op.rope_scaling)
        return np.moveaxis(rotate(own, positions, *rope), 0, 1)

    def _own(self, step: str, exact: Floats, error: Floats | float = 0.0) -> Found:
        """A step of the engine's own kernels: rounded once, and off by `error` before."""
        bound = np.abs(exact) * (2.0**-11 + 2.0**-18) + error + 2.0**-24
        limit = float(np.linalg.norm(bound))
        return Found(self.number, step, compare_within(self.layer[step], exact, bound, limit, "float16"))

    def _linear(self, name: str, x: str, y: str) -> Found:
        library = self.model.linears[name]
        rows = len(self.layer[x])
        kernels = library.builds[self.model.gpu].kernels
        kernel = min(
            (each for each in kernels if each.variant.sizes["m"] >= rows),
            key=lambda each: each.variant.sizes["m"],
        )
        exact, magnitude = library.op.reference(*self.weights[name], {"x": self.layer[x]})
        roundings = library.op.longest_sum(kernel.tile, library.algorithm)
        return Found(self.number, name, compare(self.layer[y], exact, magnitude, roundings, "float16"))

    @cached_property
    def sides(self) -> tuple[CacheTensor, CacheTensor]:
        """Codebooks of keys and values."""
        library, op, found = self.model.attention, self.op, []
        for side, algorithm in (("key", library.keys), ("value", library.values)):
            packed = self.layer.bytes_of(f"books.append_{side}_books", np.float16)
            heads, groups = algorithm.scope.cache_books(op.kv_heads, op.head_dim // algorithm.vector_size)
            stride = algorithm.entry_stride // 2
            used = algorithm.residuals * algorithm.entries * stride
            books = packed.reshape(heads, groups, -1)[..., :used]
            shape = (heads, groups, algorithm.residuals, algorithm.entries, stride)
            codebooks = books.reshape(shape)[..., : algorithm.vector_size]
            blank = np.zeros(
                (1, op.kv_heads, 0, op.head_dim // algorithm.vector_size, algorithm.residuals), np.uint8
            )
            found.append(
                CacheTensor(side, algorithm, (op.kv_heads, 0, op.head_dim), "float16", blank, codebooks)
            )
        return found[0], found[1]

    def cache(self, when: str, lengths: NDArray[np.int32]) -> HostCache:
        """The cache `before` or `after` the layer ran, its codes unpacked from its pages."""
        layout, op, layer = self.model.attention.layout, self.op, self.layer
        words = layer.bytes_of(f"{when}.pages", np.uint32)
        table = layer.arrays.get("page_table")
        pages = words.reshape(self._page_count(table, words), op.kv_heads, -1, layout.block_bytes // 4)
        own = pages[:, None] if table is None else pages[table]
        blocks = np.moveaxis(own, 2, 1).reshape(self.batch, op.kv_heads, -1, layout.block_bytes // 4)
        keys, values = unpack_token_blocks(blocks, layout)
        window = (self.batch, op.kv_heads, max(1, op.window), op.head_dim)
        windows = [
            layer.bytes_of(f"{when}.{side}_window", np.float16).reshape(window)
            if op.window
            else np.zeros(window)
            for side in ("key", "value")
        ]
        return HostCache(
            layout, op.window, lengths, keys.copy(), values.copy(), windows[0], windows[1], pages, table
        )

    def _page_count(self, table: NDArray[Any] | None, words: NDArray[np.uint32]) -> int:
        if table is None:
            return self.batch
        page_blocks = self.op.page_tokens // 32
        return len(words) // (self.op.kv_heads * page_blocks * self.model.attention.layout.block_bytes // 4)

    def _new_keys_and_values(self) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        op = self.op
        shape = (self.batch, self.new_tokens, op.kv_heads, op.head_dim)
        heads = self.layer["qkv"].reshape(self.batch * self.new_tokens, -1, op.head_dim)
        keys = heads[:, op.q_heads : op.q_heads + op.kv_heads]
        if op.rope == "none":
            keys = self.layer["rotated"].reshape(len(heads), -1, op.head_dim)[:, op.q_heads :]
        return keys.reshape(shape), heads[:, op.q_heads + op.kv_heads :].reshape(shape)

    def _appended(self) -> Iterator[Found]:
        before = self.cache("before", self.lengths - self.new_tokens)
        wanted = before.appended(self.sides, self._new_keys_and_values(), [self.new_tokens] * self.batch)
        after = self.cache("after", self.lengths)
        pairs = [("pages", after.pages, wanted.pages)]
        if self.op.window:
            pairs += [
                ("key window", after.key_window, wanted.key_window),
                ("value window", after.value_window, wanted.value_window),
            ]
        for what, computed, exact in pairs:
            yield Found(self.number, f"append, {what}", compare_bytes(computed, exact))

    def _cached(self, new: tuple[Floats, Floats] | None = None) -> tuple[list[Floats], list[Floats]]:
        """Keys, rotated, and values of each sequence; the last ones by `new` where they are in the window."""
        op, after = self.op, self.cache("after", self.lengths)
        keys, values = [], []
        for sequence, length in enumerate(self.lengths):
            own = [
                after.decoded(self.sides[0], sequence, keys=True),
                after.decoded(self.sides[1], sequence, keys=False),
            ]
            if new is not None and op.window >= self.new_tokens:
                for side, array in enumerate(new):
                    rows = array.reshape(self.batch, self.new_tokens, op.kv_heads, op.head_dim)[sequence]
                    own[side][:, length - self.new_tokens :] = np.moveaxis(rows, 0, 1)
            keys.append(rotate(own[0], np.arange(length), op.rope, op.rope_base, op.rope_scaling))
            values.append(own[1])
        return keys, values

    def _attended(self) -> Found:
        op, scale = self.op, self.op.head_dim**-0.5
        got = self.layer["attended"].reshape(self.batch, self.new_tokens, op.q_heads, op.head_dim)
        rotated = self.layer["rotated"].reshape(self.batch, self.new_tokens, -1, op.head_dim)
        if self.prefill:
            exact = self._causal(rotated.astype(np.float64), self.layer.exact("qkv"))
            bound = 2.0**-11 * np.abs(exact.outputs) + 2.0**-10 * exact.magnitudes + 2.0**-24
            limit = float(np.linalg.norm(bound))
            return Found(
                self.number, "attention", compare_within(got, exact.outputs, bound, limit, "float16")
            )
        exact = attend(
            rotated[:, :, : op.q_heads],
            *self._cached(),
            scale=scale,
            sliding_window=op.sliding_window,
            rope=op.rope,
        )
        kernels = self.model.attention.builds[self.model.gpu].kernels
        kernel = min(
            (each for each in kernels if each.variant.sizes["batch"] >= self.batch),
            key=lambda each: each.variant.sizes["batch"],
        )
        found = compare_outputs(got, exact, self.model.attention, kernel, int(self.lengths.max()))
        return Found(self.number, "attention", found)

    def _causal(self, rotated: Floats, qkv: Floats) -> Any:
        """Attention of a prefill over its own tokens: `rotated` [sequences, tokens, heads, head_dim]."""
        op = self.op
        values = self.parts(qkv)[2].reshape(self.batch, self.new_tokens, op.kv_heads, op.head_dim)
        keys = rotated[:, :, op.q_heads :]
        return attend(
            rotated[:, :, : op.q_heads],
            [np.moveaxis(each, 0, 1) for each in keys],
            [np.moveaxis(each, 0, 1) for each in values],
            scale=op.head_dim**-0.5,
        )

    def _whole(self) -> Found:
        """The layer from its input on, in float64."""
        layer, op = self.layer, self.op
        weight = {name: pair[0] for name, pair in self.weights.items()}
        start = layer.exact("residual") + layer.exact("delta")
        qkv = self.normed(start, "attention_norm") @ weight["qkv"].T
        rotated = self.rotated(qkv).reshape(self.batch, self.new_tokens, -1, op.head_dim)
        if self.prefill:
            attended = self._causal(rotated, qkv).outputs
        else:
            _, keys, values = self.parts(qkv)
            own = rotated[:, :, op.q_heads :].reshape(keys.shape) if op.rope == "none" else keys
            attended = attend(
                rotated[:, :, : op.q_heads],
                *self._cached((own, values)),
                scale=op.head_dim**-0.5,
                sliding_window=op.sliding_window,
            ).outputs
        middle = start + attended.reshape(len(start), -1) @ weight["o"].T
        exact = middle + gated(self.normed(middle, "mlp_norm") @ weight["gate_up"].T) @ weight["down"].T
        got = layer.exact("mlp_sum") + layer.exact("down")
        added, limit = exact - start, WHOLE_LAYER * float(np.linalg.norm(exact - start))
        bound = np.full(
            added.shape, 8 * WHOLE_LAYER * np.sqrt((added**2).mean()) + 2.0**-9 * np.abs(exact).max()
        )
        return Found(self.number, "whole layer", compare_within(got - start, added, bound, limit))


def gated(gate_up: Floats) -> Floats:
    """silu(gate) * up of rows [gate | up]."""
    gate, up = np.split(gate_up, 2, axis=-1)
    product: Floats = gate / (1 + np.exp(-gate)) * up
    return product


def check_dump(directory: Path, model: Model) -> Iterator[Found]:
    """Every step of every layer, and the sum that ends the last one."""
    files = sorted(directory.glob("layer-*.safetensors"), key=lambda path: int(path.stem.partition("-")[2]))
    if not files:
        sys.exit(f"{directory} holds no layer-*.safetensors: run the engine with --dump {directory}")
    for number, path in enumerate(files):
        check = Check(number, Dumped(path), model)
        yield from check.steps()
    exact = check.layer.exact("mlp_sum") + check.layer.exact("down")
    got = Dumped(directory / "output.safetensors")["output"]
    bound = np.abs(exact) * 2.0**-11 + 2.0**-24
    yield Found(
        len(files) - 1, "output", compare_within(got, exact, bound, float(np.linalg.norm(bound)), "float16")
    )


def main() -> None:
    """Check a dump and say what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dump", type=Path)
    parser.add_argument("--model", type=Path, required=True, help="the compiled model's directory")
    parser.add_argument("--gpu", default="h200", help="whose kernels ran")
    options = parser.parse_args()
    right = True
    for found in check_dump(options.dump, Model.load(options.model, options.gpu)):
        print(found, flush=True)
        right &= found.comparison.passed
    sys.exit(0 if right else 4)


if __name__ == "__main__":
    main()
