"""The same as the command line, without a terminal: functions from files to files.

Each raises `vqcc.diagnostics.VqccError` with every diagnostic of its input.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vqcc.building import Built, build_library, write_library
from vqcc.diagnostics import Diagnostic, DiagnosticList, VqccError
from vqcc.library import Library, load_cache_library, load_library, load_weight_library, select_gpus
from vqcc.spec.load import load_algorithm, load_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from vqcc.algorithms.base import Algorithm
    from vqcc.hotness import Summary, TensorProfile
    from vqcc.tensors.cache_packing import PackedBooks
    from vqcc.tensors.cache_tensor import CacheTensor
    from vqcc.tensors.packing import PackedTensor
    from vqcc.tensors.vq_tensor import VQTensor

__all__ = [
    "Built",
    "Library",
    "algorithm_named",
    "build_library",
    "load_library",
    "load_spec",
    "pack",
    "pack_books",
    "profile",
    "quantize",
    "quantize_all",
    "write_library",
]


def algorithm_named(text: str) -> Algorithm:
    """The algorithm of a preset, or of a spec file if `text` ends like one or is one."""
    from vqcc.algorithms.presets import resolve

    path = Path(text)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        return load_algorithm(path)
    return resolve(text)


def quantize(
    weights: Path,
    name: str,
    algorithm: str,
    output: Path,
    *,
    fisher: str | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,  # noqa: ARG005
) -> VQTensor | CacheTensor:
    """Quantize tensor `name` of a safetensors file and write it to `output`: `quantize_all` of one."""
    (tensor,) = quantize_all(
        weights, {name: fisher}, algorithm, output, seed=seed, progress=lambda _, *of: progress(*of)
    )
    return tensor


def quantize_all(
    weights: Path,
    names: Mapping[str, str | None],
    algorithm: str,
    output: Path,
    *,
    seed: int = 0,
    fused: str | None = None,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,  # noqa: ARG005
) -> list[VQTensor | CacheTensor]:
    """Quantize tensors of a safetensors file and write them to `output`, all or none.

    With `fused` their rows become those of one weight of that name, in the order of `names`: VQ0548 if they have other
    numbers of columns or types, or are no weights.

    By an algorithm of a KV cache they are keys or values [kv_heads, tokens, head_dim] of a layer, and what `names` has
    for them names squared gradients of them in the same file, if anything. Raises VQ0711 if `output` is the file or the
    spec of the algorithm, VQ0546 for such gradients with a weight's algorithm, and VQ05xx for the tensors.
    """
    from vqcc.tensors.container import save
    from vqcc.tensors.output import check_outputs
    from vqcc.tensors.shards import files_of

    spec = Path(algorithm)
    check_outputs([output], (*files_of(weights), *([spec] if spec.is_file() else ())))
    chosen = algorithm_named(algorithm)
    tensors: list[VQTensor | CacheTensor]
    if fused is not None:
        tensors = [_quantized_together(weights, names, fused, chosen, seed, partial(progress, fused))]
    else:
        tensors = [
            _quantized(weights, name, fisher, chosen, seed, partial(progress, name))
            for name, fisher in names.items()
        ]
    save(output, tensors)
    return tensors


def _quantized(
    weights: Path,
    name: str,
    fisher: str | None,
    chosen: Algorithm,
    seed: int,
    progress: Callable[[int, int], None],
) -> VQTensor | CacheTensor:
    from vqcc.tensors.container import load_weights

    if chosen.scope.is_cache:
        from vqcc.tensors.cache_learning import quantize_cache

        activations = load_weights(weights, name, 3)
        gradients = None if fisher is None else load_weights(weights, fisher, 3)
        return quantize_cache(activations, name, chosen, fisher=gradients, seed=seed, progress=progress)
    from vqcc.tensors.quantize import quantize as quantize_weights

    if fisher is not None:
        raise VqccError(_fisher_of_a_weight(chosen))
    return quantize_weights(load_weights(weights, name), name, chosen, seed=seed, progress=progress)


def _quantized_together(
    weights: Path,
    names: Mapping[str, str | None],
    fused: str,
    chosen: Algorithm,
    seed: int,
    progress: Callable[[int, int], None],
) -> VQTensor:
    """One weight, of the rows of several."""
    import numpy as np

    from vqcc.tensors.container import load_weights
    from vqcc.tensors.quantize import quantize as quantize_weights

    if chosen.scope.is_cache:
        message = f"{chosen.label} quantizes keys or values, which are not fused"
        raise VqccError(
            Diagnostic("VQ0548", message, help="leave --fuse out, or use an algorithm of weights")
        )
    if any(names.values()):
        raise VqccError(_fisher_of_a_weight(chosen))
    parts = {name: load_weights(weights, name) for name in names}
    first = next(iter(parts.values()))
    for name, part in parts.items():
        if (part.shape[1], part.dtype) != (first.shape[1], first.dtype):
            raise VqccError(
                Diagnostic(
                    "VQ0548",
                    f"{weights}: '{name}' is {part.dtype} {list(part.shape)}, '{next(iter(parts))}' is "
                    f"{first.dtype} {list(first.shape)}",
                    help="weights that are fused have the same inputs: as many columns, of one type",
                )
            )
    return quantize_weights(np.concatenate(list(parts.values())), fused, chosen, seed=seed, progress=progress)


def _fisher_of_a_weight(chosen: Algorithm) -> Diagnostic:
    message = f"{chosen.label} quantizes a weight, which Fisher weights say nothing of"
    return Diagnostic("VQ0546", message, help="leave --fisher out, or use an algorithm of a KV cache")


def pack(
    tensors: Path,
    library: Path,
    output: Path,
    *,
    gpu: str | None = None,
    names: Sequence[str] = (),
    other_codes: bool = False,
) -> list[tuple[VQTensor, PackedTensor]]:
    """Pack VQ tensors of a file (all, or those named) for a library over a weight and write them to `output`.

    For a library built from a profile, entries are renamed by how often each tensor's codes look them up. Raises
    VQ0803 for tensors that do not fit the library, VQ0805 for a GPU it was not compiled for, VQ0540 for codes that
    its profile did not count, unless `other_codes`, VQ0711 for an output that is an input or in the library, VQ0713 for
    a library over a KV cache.
    """
    from vqcc.tensors.container import load_all
    from vqcc.tensors.output import check_outputs
    from vqcc.tensors.packed_file import save_packed
    from vqcc.tensors.shards import files_of
    from vqcc.verify.harness import check_tensors

    check_outputs([output], (*files_of(tensors), library))
    loaded = load_weight_library(library)
    if gpu is not None:
        select_gpus(loaded, (gpu,))
    chosen = load_all(tensors, names)
    check_tensors(loaded, chosen)
    if loaded.profile_codes and not other_codes:
        _check_codes(loaded, chosen)
    packed = [(tensor, loaded.pack(tensor)) for tensor in chosen]
    save_packed(output, loaded, packed)
    return packed


def pack_books(
    tensors: Path,
    keys: str,
    values: str,
    library: Path,
    output: Path,
    *,
    gpu: str | None = None,
    name: str | None = None,
) -> PackedBooks:
    """Pack the codebooks of quantized `keys` and `values` of a file for a library over a KV cache, into `output`.

    There they are called `name`, by default as the keys are. Raises VQ0803 for tensors that do not fit the library,
    VQ0805 for a GPU it was not compiled for, VQ0711 for an output that is an input or in the library, VQ0713 for a
    library over a weight.
    """
    from vqcc.tensors.cache_packed_file import save_packed_books
    from vqcc.tensors.container import load_cache
    from vqcc.tensors.output import check_outputs
    from vqcc.tensors.shards import files_of
    from vqcc.verify.cache_harness import check_cache_tensors

    check_outputs([output], (*files_of(tensors), library))
    loaded = load_cache_library(library)
    if gpu is not None:
        select_gpus(loaded, (gpu,))
    sides = (load_cache(tensors, keys), load_cache(tensors, values))
    check_cache_tensors(loaded, *sides)
    packed = loaded.pack(*sides)
    save_packed_books(output, loaded, name or keys, *sides, packed)
    return packed


def profile(
    tensors: Path,
    output: Path | None = None,
    *,
    names: Sequence[str] = (),
    part_rows: int | None = None,
    plot: Path | None = None,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,  # noqa: ARG005
) -> tuple[list[Summary], str | None]:
    """Count the look-ups of VQ tensors of a file (all, or those named): what is told of them, and the profile's hash.

    The profile is written to `output`, a figure of them to `plot`, neither if a tensor is wrong. One tensor is in
    memory at a time, more only for a figure. `progress` is called with (name, bytes done, bytes in all). Raises
    VQ05xx for the tensors and what VQ0541 to VQ0543 say, VQ0711 for an output that is an input or the other output.
    """
    from vqcc.hotness import profile_tensor, save_profile, summarize
    from vqcc.tensors.container import in_file, load_all
    from vqcc.tensors.output import check_outputs
    from vqcc.tensors.shards import files_of

    check_outputs([path for path in (output, plot) if path is not None], files_of(tensors))
    chosen = load_all(tensors, names, check_codes=False)
    if plot is not None:
        from vqcc.report.plots import check_plot

        check_plot(plot, len(chosen))
    summaries, drawn, found = [], [], DiagnosticList()

    def counted() -> Iterator[TensorProfile]:
        for tensor in chosen:
            try:
                one = profile_tensor(tensor, part_rows=part_rows, progress=partial(progress, tensor.name))
            except VqccError as error:
                found.extend(in_file(tensors, error).diagnostics)
                continue
            summaries.append(summarize(one))
            if plot is not None:
                drawn.append(one)
            yield one
        found.raise_if_errors()

    sha256 = None
    if output is not None:
        sha256 = save_profile(output, counted())
    else:
        deque(counted(), maxlen=0)
    if plot is not None:
        from vqcc.report.plots import save_plot

        save_plot(plot, drawn)
    return summaries, sha256


def _check_codes(library: Library, tensors: Sequence[VQTensor]) -> None:
    """Refuse tensors whose codes the library's profile did not count. Raises VQ0540, once for each of them."""
    from vqcc.hotness import codes_sha256

    found = DiagnosticList()
    for tensor in tensors:
        sha256 = codes_sha256(tensor)
        if sha256 not in library.profile_codes:
            found.error(
                "VQ0540",
                f"library {library.name} was built from a profile of other codes than those of '{tensor.name}' "
                f"(sha256 {sha256[:12]}...)",
                help="profile this file and compile again, or give --other-codes: results stay right, and times "
                "as planned where these codes are as skewed",
            )
    found.raise_if_errors()
