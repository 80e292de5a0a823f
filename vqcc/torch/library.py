"""Libraries as a PyTorch user meets them: loaded from a bundle, called with tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch

from vqcc.library import CacheLibrary, load_library
from vqcc.tensors import cache_packed_file, packed_file
from vqcc.torch.attention_launch import AttentionLaunches
from vqcc.torch.attention_op import append, attend, attend_with_log_sums
from vqcc.torch.attention_runtime import AttentionRuntime
from vqcc.torch.errors import reported
from vqcc.torch.linear import Weight
from vqcc.torch.linear_launch import LinearLaunches
from vqcc.torch.linear_op import LinearRuntime, linear
from vqcc.torch.runtime import register

if TYPE_CHECKING:
    import os

    from torch import Tensor

    from vqcc.torch.attention import Books, Cache
    from vqcc.torch.runtime import Runtime

__all__ = ["AttentionLibrary", "LinearLibrary", "TorchLibrary", "load"]

AnyRuntime = TypeVar("AnyRuntime", bound="Runtime[Any]")


def load(
    directory: str | os.PathLike[str],
    *,
    rows: int | None = None,
    overlap: bool = False,
    emulator_cache: str | os.PathLike[str] | None = None,
) -> LinearLibrary | AttentionLibrary:
    """Load the bundle of one library, which `vqcc compile` wrote. Nothing goes to a GPU yet.

    `rows` is the most rows of x that launches of a linear library will have: it bounds the workspace, which is made for
    the most that the library serves without it. With `overlap` a launch may start while the kernel before it in the
    stream ends (docs/header.md). Tensors on the CPU are run by the emulator, which keeps what it compiles in
    `emulator_cache`, the user's cache folder if left out. Raises ValueError for a directory that is no sound bundle.
    """
    path = Path(directory)
    cache = None if emulator_cache is None else Path(emulator_cache)
    with reported():
        library = load_library(path)
    if isinstance(library, CacheLibrary):
        runtime = AttentionRuntime(library, AttentionLaunches, overlap=overlap, emulator_cache=cache)
        return AttentionLibrary(register(runtime), rows)
    return LinearLibrary(
        register(LinearRuntime(library, LinearLaunches, overlap=overlap, emulator_cache=cache)), rows
    )


class TorchLibrary(ABC, Generic[AnyRuntime]):
    """What libraries over weights and over KV caches have in common."""

    def __init__(self, runtime: AnyRuntime, rows: int | None = None) -> None:
        self._runtime = runtime
        self._rows = rows
        self._workspaces: dict[torch.device, Tensor | None] = {}
        self._identity = runtime.identity
        #: What packed data must carry to fit.
        self.layout_id: str = runtime.library.bundle.manifest["layout_id"]
        self.name: str = runtime.library.name
        #: Element types of x, or of queries, keys and values.
        self.dtypes: tuple[torch.dtype, ...] = tuple(runtime.types)
        #: GPUs that it was compiled for.
        self.gpus: tuple[str, ...] = runtime.library.gpus

    @abstractmethod
    def expected_parts(self) -> dict[str, tuple[str, tuple[int, ...] | None]]:
        """Type and shape of each packed array; no shape: one dimension of any length."""

    @abstractmethod
    def workspace_bytes(self) -> int:
        """Device memory that a workspace of this library has; 0: launches need none."""

    def warm_up(self, device: torch.device | str | int = "cuda") -> None:
        """Load the kernels on a CUDA device: nothing can be loaded while a CUDA graph is captured.

        Weights and books that are made on a device, or moved to it, have done so. Raises RuntimeError without a driver
        and for a GPU that the library is not for.
        """
        place = _placed(torch.device(device))
        if place.type == "cuda":
            self._runtime.loaded(place.index)

    def workspace(self, device: torch.device) -> Tensor | None:
        """The workspace that weights of this library share on a device; None where launches need none.

        It is zero before the first launch, and each launch leaves it as the next one needs it, so launches that use it
        must follow one another: `own_workspace()` of a weight makes it independent of others.
        """
        place = _placed(device)
        if place not in self._workspaces:
            self._workspaces[place] = self.new_workspace(place)
        return self._workspaces[place]

    def new_workspace(self, device: torch.device) -> Tensor | None:
        """Another one, for launches beside those that use the shared one."""
        self.warm_up(device)
        size = self.workspace_bytes() if device.type == "cuda" else 0
        if not size:
            return None
        made = torch.zeros(size, dtype=torch.uint8, device=device)
        # Whatever stream launches first finds zeros.
        torch.cuda.current_stream(device).synchronize()
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> TorchLibrary[AnyRuntime]:
        return self  # a copied model runs the same kernels

    def __reduce__(self) -> tuple[Any, ...]:
        directory = str(self._runtime.library.bundle.directory)
        return _load_again, (directory, self._rows, self._runtime.overlap)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, gpus={list(self.gpus)})"


def _placed(device: torch.device) -> torch.device:
    """The device with its number."""
    bare = device.type == "cuda" and device.index is None
    return torch.device("cuda", torch.cuda.current_device()) if bare else device


def _load_again(directory: str, rows: int | None, overlap: bool) -> LinearLibrary | AttentionLibrary:
    return load(directory, rows=rows, overlap=overlap)


class LinearLibrary(TorchLibrary[LinearRuntime]):
    """A library of products with a quantized weight: ops gemv, gemm and linear."""

    @property
    def shape(self) -> tuple[int, int]:
        """Shape [n, k] of the weight."""
        return self._runtime.library.op.weight_shape

    @property
    def max_rows(self) -> int:
        """The most rows of x that a launch takes."""
        return self._runtime.any_launches.max_m

    def expected_parts(self) -> dict[str, tuple[str, tuple[int, ...] | None]]:
        """Type and shape of each packed array; no shape: one dimension of any length."""
        return packed_file.expected_parts(self._runtime.library)

    def workspace_bytes(self) -> int:
        """Device memory that launches of up to `rows` rows need, of any type."""
        launches = self._runtime.any_launches
        rows = min(self._rows or launches.max_m, launches.max_m)
        return max(launches.workspace_bytes(dtype, rows) for dtype in self._runtime.types.values())

    def weight(
        self, path: str | os.PathLike[str], name: str | None = None, *, device: torch.device | str = "cuda"
    ) -> Weight:
        """Read a weight that `vqcc pack` wrote for this library, onto a device.

        `name` picks one of a file with several. Raises ValueError for a file that is damaged, was packed for another
        layout, or has no such weight.
        """
        with reported():
            packed = packed_file.load_packed(Path(path), self._runtime.library)
        return Weight.from_arrays(self, packed[_picked(path, packed, name)], device)

    def linear(self, x: Tensor, weight: Weight, bias: Tensor | None = None) -> Tensor:
        """Multiply, y = x W^T (+ bias): x [..., k] and bias [n] float16 or bfloat16 as the library has it, y [..., n].

        The kernel is chosen by the number of rows. Rows that lie apart are read where they are; x is copied if they are
        not aligned as the kernels need. Raises TypeError, ValueError and RuntimeError for operands that do not fit, and
        RuntimeError if x requires a gradient.
        """
        if weight.library is not self:
            _check_layout(self, weight)
        codes, books, stage_scales, scales, workspace = weight.operands()
        result: Tensor = linear(x, codes, books, stage_scales, scales, bias, workspace, self._identity)
        return result


class AttentionLibrary(TorchLibrary[AttentionRuntime]):
    """A library of attention over a quantized KV cache: op attention_decode."""

    def __init__(self, runtime: AttentionRuntime, rows: int | None = None) -> None:
        super().__init__(runtime, rows)
        #: What the manifest says: `compiled.op` has the shapes.
        self.compiled = runtime.library
        self._scale = float(runtime.library.op.head_dim) ** -0.5

    def expected_parts(self) -> dict[str, tuple[str, tuple[int, ...] | None]]:
        """Type and shape of each packed array."""
        return dict(cache_packed_file.expected_parts(self._runtime.library))

    def workspace_bytes(self) -> int:
        """Device memory that a launch of any batch needs, on any GPU."""
        return self._runtime.workspace_bytes

    def books(
        self, path: str | os.PathLike[str], name: str | None = None, *, device: torch.device | str = "cuda"
    ) -> Books:
        """Read the codebooks of a layer that `vqcc pack` wrote for this library. Raises ValueError as `weight` does."""
        from vqcc.torch.attention import Books

        with reported():
            packed = cache_packed_file.load_packed_books(Path(path), self._runtime.library)
        return Books.from_arrays(self, packed[_picked(path, packed, name)], device)

    def cache(
        self,
        *,
        batch: int,
        pages: int | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cuda",
    ) -> Cache:
        """An empty cache of a layer for up to `batch` sequences.

        `pages` is the number of pages of a paged cache, shared by all sequences; a contiguous one has a page for each
        sequence, of the library's whole context. Windows, if the library has any, are of `dtype`, the library's only
        one if left out.
        """
        from vqcc.torch.attention import Cache

        return Cache(self, batch=batch, pages=pages, dtype=dtype, device=torch.device(device))

    def append(
        self,
        cache: Cache,
        books: Books,
        keys: Tensor,
        values: Tensor,
        lengths: Tensor,
        *,
        page_table: Tensor | None = None,
        counts: Tensor | None = None,
    ) -> None:
        """Encode new keys and values [batch, new_tokens, kv_heads, head_dim] into the cache.

        `lengths` int32 [batch] are the tokens of sequences with the new ones, `counts` int32 [batch] how many of the
        new tokens each sequence gets, all of them without. `page_table` int32 [batch, pages of a sequence] is a paged
        cache's. Lengths, counts and pages are read on the GPU, and wrong ones corrupt the cache: `Cache.check` finds
        them.
        """
        _check_layouts(self, books, cache)
        append(
            keys,
            values,
            books.append_key_books,
            books.append_value_books,
            *cache.operands(),
            lengths,
            page_table,
            counts,
            self._identity,
        )

    def attend(
        self,
        queries: Tensor,
        cache: Cache,
        books: Books,
        lengths: Tensor,
        *,
        page_table: Tensor | None = None,
        softmax_scale: float | None = None,
        softcap: float = 0.0,
    ) -> Tensor:
        """Attention of queries [batch, query_tokens, q_heads, head_dim], the last tokens of their sequences.

        Returns outputs of the same shape. `softmax_scale` is 1 / sqrt(head_dim) if left out; `softcap` is what scores
        are capped at, of a library that caps them. A sequence of length 0 has output 0.
        """
        operands = self._operands(cache, books, lengths, page_table, softmax_scale, softcap)
        result: Tensor = attend(queries, *operands)
        return result

    def attend_with_log_sums(
        self,
        queries: Tensor,
        cache: Cache,
        books: Books,
        lengths: Tensor,
        *,
        page_table: Tensor | None = None,
        softmax_scale: float | None = None,
        softcap: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """The same, and log-sum-exps float32 [batch, query_tokens, q_heads], by which parts of a context are joined."""
        operands = self._operands(cache, books, lengths, page_table, softmax_scale, softcap)
        outputs, log_sums = attend_with_log_sums(queries, *operands)
        return outputs, log_sums

    def _operands(
        self,
        cache: Cache,
        books: Books,
        lengths: Tensor,
        page_table: Tensor | None,
        softmax_scale: float | None,
        softcap: float,
    ) -> tuple[Any, ...]:
        """Those of operators that attend, after queries."""
        _check_layouts(self, books, cache)
        scale = self._scale if softmax_scale is None else softmax_scale
        attending, workspace = books.operands()
        stored = cache.operands()
        return (*attending, *stored, lengths, page_table, workspace, scale, softcap, self._identity)


def _check_layouts(library: TorchLibrary[Any], *all_packed: Books | Cache) -> None:
    for packed in all_packed:
        if packed.library is not library:
            _check_layout(library, packed)


def _check_layout(library: TorchLibrary[Any], packed: Weight | Books | Cache) -> None:
    if packed.library.layout_id != library.layout_id:
        raise ValueError(
            f"the {type(packed).__name__.lower()} has layout {packed.library.layout_id}, library {library.name} reads "
            f"{library.layout_id}: pack the tensor for this library"
        )


def _picked(path: str | os.PathLike[str], packed: dict[str, Any], name: str | None) -> str:
    """The name asked for, or the only one. Raises ValueError."""
    held = ", ".join(packed) or "none"
    if name is None and len(packed) != 1:
        raise ValueError(f"{path} holds {held}: say which one by name")
    if name is not None and name not in packed:
        raise ValueError(f"{path} has no '{name}': it holds {held}")
    return next(iter(packed)) if name is None else name
