"""Validation of a library over a KV cache: what kernels attend to against float64, what they append to the bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcc.diagnostics import Diagnostic, DiagnosticList, ExitCode, VqccError
from vqcc.tensors.cache_random import random_cache_tensor
from vqcc.verify.cache_cases import append_case, attend_case, attended, lengths_of
from vqcc.verify.cache_tolerance import compare_bytes, compare_log_sums, compare_outputs
from vqcc.verify.harness import CaseResult, not_repeated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from vqcc.cache_library import CacheKernel, CacheLibrary
    from vqcc.tensors.cache_tensor import CacheTensor
    from vqcc.verify.backends import Backend, Runner
    from vqcc.verify.cache_cases import CacheLaunch

__all__ = ["check_cache_tensors", "random_sides", "validate_cache"]

#: Tokens of all kv-heads and sequences that a launch attends to, by backend: what takes seconds there.
_HEAD_TOKENS = {"emulate": 1 << 13, "cuda": 1 << 19}
#: Sequences and kv-heads' tokens of a launch that appends; each token is compared with every entry.
_APPEND_BATCH = {"emulate": 4, "cuda": 64}


def check_cache_tensors(library: CacheLibrary, keys: CacheTensor, values: CacheTensor) -> None:
    """Refuse keys or values that the library was not compiled for. Raises VQ0803 for each of them."""
    heads = (library.op.kv_heads, library.op.head_dim)
    found = DiagnosticList()
    for side, tensor, algorithm in (("keys", keys, library.keys), ("values", values, library.values)):
        theirs, ours = tensor.algorithm.mapping(), algorithm.mapping()
        wrong = [
            f"{field} {theirs.get(field)!r} instead of the library's {ours.get(field)!r}"
            for field in sorted(theirs.keys() | ours.keys())
            if theirs.get(field) != ours.get(field)
        ]
        shape = (tensor.shape[0], tensor.shape[2])
        if shape != heads:
            wrong.append(f"{shape[0]} kv-heads of {shape[1]} channels instead of {heads[0]} of {heads[1]}")
        if wrong:
            found.error(
                "VQ0803",
                f"'{tensor.name}' does not fit the {side} of library {library.name}: it has {'; '.join(wrong)}",
                help="compile a spec with the tensor's algorithm and heads, or quantize with the library's",
            )
    found.raise_if_errors()


def random_sides(library: CacheLibrary, rng: np.random.Generator) -> tuple[CacheTensor, CacheTensor]:
    """Random keys and values that fit the library."""
    op = library.op
    return (
        random_cache_tensor(rng, "random keys", library.keys, op.kv_heads, op.head_dim),
        random_cache_tensor(rng, "random values", library.values, op.kv_heads, op.head_dim),
    )


def validate_cache(
    library: CacheLibrary,
    backend: Backend,
    *,
    tensors: tuple[CacheTensor, CacheTensor] | None = None,
    packed: Mapping[str, NDArray[Any]] | None = None,
    gpus: Sequence[str] = (),
    seed: int = 0,
) -> Iterator[CaseResult]:
    """Run every kernel of `gpus` (default: all) on keys and values of `tensors`, or on random ones.

    `packed` are their books as a file has them; else they are packed here. Kernels that attend run at their bound on
    sequences and at a smaller one, on ragged lengths, with as many query tokens as the op has and with one; all of a
    GPU's share one workspace, which is zeroed once, and each launch is repeated once all have run. Kernels that append
    must leave the cache as the reference does, every byte of it. Raises VQ0803 for tensors that do not fit, VQ0804,
    VQ0808 and VQ08xx as `vqcc.verify.harness.validate`.
    """
    rng = np.random.default_rng(seed)
    sides = random_sides(library, rng) if tensors is None else tensors
    check_cache_tensors(library, *sides)
    books = library.pack(*sides).arrays() if packed is None else packed
    for gpu in gpus or library.gpus:
        workspace = np.zeros(library.builds[gpu].workspace_bytes, np.uint8)
        running = _Running(library, gpu, backend.load(library, gpu), sides, books, workspace)
        launched = []
        for kernel in library.builds[gpu].kernels:
            for lengths, query_tokens in _sizes(library, kernel, backend.name):
                case = attend_case(library, kernel.variant, sides, lengths, query_tokens, rng)
                outputs = _blank(case)
                yield from _run_attend(running, kernel, case, outputs)
                launched.append((kernel, case, outputs))
        for kernel, case, outputs in launched:
            _repeat(running, kernel, case, outputs)
        yield from _run_appends(running, _APPEND_BATCH[backend.name], rng)


def _sizes(library: CacheLibrary, kernel: CacheKernel, backend: str) -> Iterator[tuple[list[int], int]]:
    """Lengths of sequences and query tokens of the launches of one kernel."""
    op = library.op
    tokens = max(64, _HEAD_TOKENS[backend] // op.kv_heads)
    bound = kernel.variant.sizes["batch"]
    whole = min(bound, max(4, tokens // 64))
    for batch, query_tokens in dict.fromkeys(((whole, op.query_tokens), (min(bound, 3), 1))):
        yield lengths_of(batch, op.context, query_tokens, tokens), query_tokens


@dataclass(frozen=True, eq=False)
class _Running:
    """A library loaded for one GPU, with the keys' and values' tensors, their packed books, and one workspace."""

    library: CacheLibrary
    gpu: str
    runner: Runner
    sides: tuple[CacheTensor, CacheTensor]
    books: Mapping[str, NDArray[Any]]
    workspace: NDArray[np.uint8]


def _run_attend(
    running: _Running, kernel: CacheKernel, case: CacheLaunch, outputs: Mapping[str, NDArray[Any]]
) -> Iterator[CaseResult]:
    """Launch once and compare outputs and log-sum-exps, which `outputs` then has. Raises VQ0804, VQ08xx."""
    library = running.library
    head_dim = library.op.head_dim
    before = outputs["outputs"][..., head_dim:].tobytes()
    running.runner.run(kernel, {**running.books, **case.inputs}, outputs, case.scalars, running.workspace)
    if outputs["outputs"][..., head_dim:].tobytes() != before:
        raise _broken("VQ0804", f"{kernel.name} wrote outside its output")
    exact = attended(library, case, running.sides)
    longest = case.sizes["longest"]
    found = (
        ("outputs", compare_outputs(outputs["outputs"][..., :head_dim], exact, library, kernel, longest)),
        ("log-sum-exps", compare_log_sums(outputs["log_sums"], exact, library, kernel, longest)),
    )
    for what, comparison in found:
        yield CaseResult(running.gpu, kernel.name, what, dict(case.sizes), comparison)


def _run_appends(running: _Running, most: int, rng: np.random.Generator) -> Iterator[CaseResult]:
    library, books = running.library, running.books
    own = {**books, "key_books": books["append_key_books"], "value_books": books["append_value_books"]}
    for kernel in library.builds[running.gpu].appends:
        batch = min(kernel.variant.sizes["batch"], most)
        case, wanted = append_case(library, kernel, running.sides, batch, rng)
        outputs = _blank(case)
        running.runner.run(kernel, {**own, **case.inputs}, outputs, case.scalars, np.zeros(0, np.uint8))
        pairs = [("token blocks", outputs["pages"], wanted.pages)]
        if library.op.window:
            pairs += [
                ("window of keys", outputs["key_window"], wanted.key_window),
                ("window of values", outputs["value_window"], wanted.value_window),
            ]
        for what, computed, exact in pairs:
            found = compare_bytes(computed, exact)
            yield CaseResult(running.gpu, kernel.name, what, dict(case.sizes), found, exact=True)


def _blank(case: CacheLaunch) -> dict[str, NDArray[Any]]:
    return {name: array.copy() for name, array in case.outputs.items()}


def _repeat(
    running: _Running, kernel: CacheKernel, case: CacheLaunch, first: Mapping[str, NDArray[Any]]
) -> None:
    """Launch a case that has run again. Raises VQ0808 if a bit differs, VQ08xx."""
    outputs = _blank(case)
    running.runner.run(kernel, {**running.books, **case.inputs}, outputs, case.scalars, running.workspace)
    if any(outputs[name].tobytes() != array.tobytes() for name, array in first.items()):
        raise not_repeated(kernel.name)


def _broken(code: str, message: str) -> VqccError:
    return VqccError(Diagnostic(code, message, help="please report this spec"), exit_code=ExitCode.MISMATCH)
