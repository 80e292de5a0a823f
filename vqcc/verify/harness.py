"""Validation of a library: every kernel, on given or random weights, against float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vqcc.diagnostics import Diagnostic, DiagnosticList, ExitCode, VqccError
from vqcc.verify.tolerance import Comparison, compare

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from vqcc.library import Kernel, Library
    from vqcc.ops.base import LaunchCase
    from vqcc.tensors.vq_tensor import VQTensor
    from vqcc.verify.backends import Backend, Runner

__all__ = [
    "CaseResult",
    "blank_outputs",
    "check_tensors",
    "make_workspace",
    "repeat_case",
    "run_case",
    "validate",
]


@dataclass(frozen=True)
class CaseResult:
    """One launch: which kernel, on what, and how far from float64, or, if `exact`, from the reference's bytes."""

    gpu: str
    kernel: str
    tensor: str
    sizes: dict[str, int]
    comparison: Comparison
    exact: bool = False

    def to_json(self) -> dict[str, Any]:
        """Flat, for `--json`."""
        found = self.comparison
        return {
            "gpu": self.gpu,
            "kernel": self.kernel,
            "tensor": self.tensor,
            **self.sizes,
            "passed": found.passed,
            "relative_error": found.relative_error,
            "relative_limit": found.relative_limit,
            "max_error": found.max_error,
            "bound": found.max_bound,
            "worst_ratio": found.worst,
            "worst_position": list(found.position),
        }


def check_tensors(library: Library, tensors: Iterable[VQTensor]) -> None:
    """Refuse tensors that the library was not compiled for. Raises VQ0803, once for each of them."""
    found = DiagnosticList(
        Diagnostic(
            "VQ0803",
            f"VQ tensor '{tensor.name}' does not fit library {library.name}: it has {'; '.join(wrong)}",
            help=_remedy(tensor.shape, library.op.weight_shape),
        )
        for tensor in tensors
        if (wrong := _differences(library, tensor))
    )
    found.raise_if_errors()


def _remedy(shape: tuple[int, int], own: tuple[int, int]) -> str:
    """What helps a tensor of `shape` that does not fit a library of weights of shape `own`."""
    for axis, what in enumerate(("rows", "columns")):
        parts, rest = divmod(shape[axis], own[axis])
        if parts > 1 and rest == 0 and shape[1 - axis] == own[1 - axis]:
            return (
                f"the library's weight has one in {parts} of the {what}: if {parts} ranks share the layer "
                "(tensor_parallel), quantize and pack each rank's part by itself"
            )
    return "compile a spec with the tensor's algorithm and shape, or quantize with the library's"


def _differences(library: Library, tensor: VQTensor) -> list[str]:
    theirs, ours = tensor.algorithm.mapping(), library.algorithm.mapping()
    differences = [
        f"{key} {theirs.get(key)!r} instead of the library's {ours.get(key)!r}"
        for key in sorted(theirs.keys() | ours.keys())
        if theirs.get(key) != ours.get(key)
    ]
    if tensor.shape != library.op.weight_shape:
        shapes = f"shape {list(tensor.shape)} instead of the library's {list(library.op.weight_shape)}"
        return [shapes, *differences]
    return differences


def validate(
    library: Library,
    backend: Backend,
    *,
    tensors: Sequence[VQTensor] = (),
    packed: Mapping[str, Mapping[str, NDArray[Any]]] | None = None,
    gpus: Sequence[str] = (),
    seed: int = 0,
    most_rows: int | None = None,
) -> Iterator[CaseResult]:
    """Run every kernel of `gpus` (default: all) on each tensor, or on random weights if there are none.

    `packed` holds the packed arrays of every tensor by name, as a file has them; else they are packed here,
    by `Library.pack`.

    Each kernel runs at its bounds, and at smaller sizes that it must mask; with `most_rows` of x at most. All kernels
    of a GPU share one workspace, which is zeroed once. After all of them, those that have a workspace run again: they
    must find it usable whatever the others left there, and add their sums in the same order. Raises VQ0803 for a
    tensor that does not fit, VQ0808 for another result the second time, VQ08xx for what a backend finds; a result
    outside its bound is yielded, not raised.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    check_tensors(library, tensors)
    weights = tensors or (library.algorithm.random_tensor(rng, "random", *library.op.weight_shape),)
    runners = {gpu: backend.load(library, gpu) for gpu in gpus or library.gpus}
    workspaces = {gpu: make_workspace(library, gpu) for gpu in runners}
    for tensor in weights:
        if packed is not None and tensor.name not in packed:
            held = f"it holds {', '.join(packed) or 'none'}"
            raise VqccError(Diagnostic("VQ0530", f"the packed file has no '{tensor.name}'", help=held))
        arrays = packed[tensor.name] if packed is not None else library.pack(tensor).arrays()
        decoded = (library.algorithm.decode(tensor), library.algorithm.decode(tensor, magnitudes=True))
        for gpu, runner in runners.items():
            launched = []
            for kernel in library.builds[gpu].kernels:
                for sizes in _no_larger(library.op.launch_sizes(kernel.variant), most_rows):
                    case = library.op.draw_case(kernel.variant, sizes, library.algorithm, rng)
                    blank = blank_outputs(case)
                    comparison = run_case(library, runner, kernel, case, arrays, decoded, workspaces[gpu])
                    yield CaseResult(gpu, kernel.name, tensor.name, dict(sizes), comparison)
                    if kernel.launch.workspace_bytes:
                        launched.append((kernel, case, blank))
            for kernel, case, blank in launched:
                repeat_case(runner, kernel, case, blank, arrays, workspaces[gpu])


def _no_larger(launches: Sequence[Mapping[str, int]], most: int | None) -> list[Mapping[str, int]]:
    """Sizes of launches, none larger than `most`, none twice."""
    smaller: list[Mapping[str, int]] = []
    for sizes in launches:
        own = sizes if most is None else {name: min(size, most) for name, size in sizes.items()}
        if own not in smaller:
            smaller.append(own)
    return smaller


def run_case(
    library: Library,
    runner: Runner,
    kernel: Kernel,
    case: LaunchCase,
    packed: Mapping[str, NDArray[Any]],
    decoded: tuple[NDArray[np.float64], NDArray[np.float64]],
    workspace: NDArray[np.uint8],
) -> Comparison:
    """Launch once and compare; `decoded` are the weights and their magnitudes. Raises VQ0804, VQ08xx."""
    op = library.op
    before = case.untouched(case.outputs).tobytes()
    runner.run(kernel, {**packed, **case.inputs}, case.outputs, case.scalars, workspace)
    if case.untouched(case.outputs).tobytes() != before:
        raise _broken("VQ0804", f"{kernel.name} wrote outside its output")
    exact, magnitude = op.reference(*decoded, case.inputs)
    roundings = op.longest_sum(kernel.tile, library.algorithm)
    return compare(case.result(case.outputs), exact, magnitude, roundings, kernel.variant.dtype)


def blank_outputs(case: LaunchCase) -> dict[str, NDArray[Any]]:
    """The outputs of a case as they are before its first launch, for another one."""
    return {name: array.copy() for name, array in case.outputs.items()}


def repeat_case(
    runner: Runner,
    kernel: Kernel,
    case: LaunchCase,
    blank: Mapping[str, NDArray[Any]],
    packed: Mapping[str, NDArray[Any]],
    workspace: NDArray[np.uint8],
) -> None:
    """Launch a case that has run again, on its `blank` outputs. Raises VQ0808 if a bit differs, VQ08xx."""
    runner.run(kernel, {**packed, **case.inputs}, blank, case.scalars, workspace)
    if any(blank[name].tobytes() != array.tobytes() for name, array in case.outputs.items()):
        raise not_repeated(kernel.name)


def not_repeated(kernel: str) -> VqccError:
    """VQ0808, for a launch that gave other bits than the same one before."""
    return _broken("VQ0808", f"{kernel} gave another result when it was launched again")


def make_workspace(library: Library, gpu: str) -> NDArray[np.uint8]:
    """A workspace for every kernel of `gpu`, as a library's user makes it: zeroed once."""
    import numpy as np

    return np.zeros(library.builds[gpu].workspace_bytes, dtype=np.uint8)


def _broken(code: str, message: str) -> VqccError:
    return VqccError(Diagnostic(code, message, help="please report this spec"), exit_code=ExitCode.MISMATCH)
