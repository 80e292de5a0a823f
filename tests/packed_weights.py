"""Packed weights for tests of the C reader, and the reader."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from packed_files import Edit, Pairs, Reader, arrays_in, identity_of, item_edit, name_in, refusal
from problems import gemv, kmeans

from vqcc.algorithms import from_mapping
from vqcc.algorithms.presets import resolve
from vqcc.library import Library
from vqcc.passes.bucket import bucket_layout
from vqcc.passes.fragment import fragment_layout
from vqcc.passes.layout import choose_layout
from vqcc.passes.score import rotated_layout
from vqcc.tensors.packed_file import load_packed, save_packed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vqcc.algorithms.base import Algorithm
    from vqcc.code_layouts import CodeLayout

ARRAYS = ("codes", "books", "stage_scales", "scales")


def chunked(algorithm: Algorithm, shape: tuple[int, int]) -> CodeLayout:
    return choose_layout(shape[1] // algorithm.vector_size, algorithm.residuals, algorithm.code_bits)


def rotated(algorithm: Algorithm, shape: tuple[int, int]) -> CodeLayout:
    return rotated_layout(shape[1] // algorithm.vector_size, algorithm.residuals, algorithm.code_bits)


def fragments(algorithm: Algorithm, shape: tuple[int, int]) -> CodeLayout:
    layout = fragment_layout(algorithm, shape)
    assert layout is not None
    return layout


INT8 = kmeans(entries=16, residuals=2, codebook_dtype="int8", scales={"group": 32})
TILES = {"rows": 4, "cols": 32}
CASES: dict[str, tuple[Any, tuple[int, int], Callable[[Algorithm, tuple[int, int]], CodeLayout]]] = {
    "int8": (INT8, (6, 100), chunked),
    "int8, tiles": (INT8 | {"scope": TILES, "scales": "none"}, (6, 100), chunked),
    "scales of rows": ("aqlm-2x8", (5, 264), chunked),
    "one scale": ("quip-4", (3, 96), chunked),
    "tiles": ("gptvq-2", (300, 520), chunked),
    "vectors of three": (kmeans(vector_size=3, codebook_dtype="bfloat16", scales="row"), (7, 33), chunked),
    "rotated": ("aqlm-2x8", (33, 264), rotated),
    "rotated, 12 bits": ("aqlm-3", (40, 160), rotated),
    "fragment": ("aqlm-2x8", (65, 264), fragments),
    "fragment, tiles": (INT8 | {"scope": {"rows": 32, "cols": 64}}, (40, 160), fragments),
    "bucket": (kmeans(vector_size=8, entries=16384, residuals=2), (70, 1032), bucket_layout),
    "bucket, panels": (kmeans(vector_size=8, entries=8192), (33, 4808), bucket_layout),
    "smallest": (kmeans(entries=2), (1, 4), chunked),
}


def library_of(case: str = "int8") -> Library:
    algorithm, shape, layout = CASES[case]
    made = resolve(algorithm) if isinstance(algorithm, str) else from_mapping(algorithm)
    return library_for(made, shape, layout(made, shape))


def library_for(algorithm: Algorithm, shape: tuple[int, int], layout: CodeLayout) -> Library:
    """What the readers need of a library: it has no kernels."""
    nothing: Any = None
    return Library("tiny", "", "", "", {}, nothing, algorithm, gemv(n=shape[0], k=shape[1]), layout)


def packed_file(directory: Path, library: Library, *names: str) -> bytes:
    """A file with tensors of these names, or with `w`."""
    tensor = library.algorithm.random_tensor(np.random.default_rng(0), "w", *library.op.weight_shape)
    packed = library.pack(tensor)
    path = directory / "written.safetensors"
    save_packed(path, library, [(replace(tensor, name=name), packed) for name in names or ("w",)])
    return path.read_bytes()


def python_refusal(directory: Path, data: bytes, library: Library) -> set[str]:
    """Codes of what the Python reader finds wrong with a file."""
    return refusal(lambda path: load_packed(path, library), directory, data)


@dataclass(frozen=True)
class Found:
    """What the C reader gives of a tensor; arrays as their places in the file."""

    n: int
    k: int
    layout_id: str
    by_frequency: bool
    arrays: dict[str, slice]


class WeightsReader(Reader[Found]):
    """Of vqcc/weights.h."""

    name = "weights"

    def found_in(self, line: str) -> tuple[str, Found]:
        name, n, k, layout_id, by_frequency, *places = line.split()
        return name_in(name), Found(int(n), int(k), layout_id, by_frequency == "1", arrays_in(ARRAYS, places))

    def find(self, name: str, layout_id: str = "-", codes_bytes: int = 0, books_bytes: int = 0) -> str:
        """The status of looking a tensor up in the file that was checked last."""
        return self.look_up(layout_id, str(codes_bytes), str(books_bytes), name=name)

    def accepts(self, data: bytes, library: Library) -> bool:
        """Whether a file is sound and all of its tensors are for a library, which is what Python's reader wants."""
        answer = self.check(data)
        return answer.status == "OK" and all(
            self.find(name, library.layout_id) == "OK" for name in answer.found
        )


def identity(tensor: Pairs) -> str:
    """The layout id of what is said of a tensor, as docs/packed-layout.md has it."""
    return identity_of(*(dict(tensor).get(key) for key in ("algorithm", "shape", "layout")))


def tensor_edit(*, identified: bool = True, **fields: Any) -> Edit:
    """An edit of what is said of `w`, with the layout id that is then right."""
    return item_edit(identity, identified=identified, **fields)
