"""Launches that may start while the kernel before them ends: programmatic dependent launch, past what PyCUDA offers."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from vqcc.diagnostics import Diagnostic, ExitCode, VqccError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vqcc.compiled import CompiledKernel

__all__ = ["OverlappingModule"]

_C_TYPES: Mapping[str, Any] = {"uint64": ctypes.c_uint64, "int64": ctypes.c_int64, "int32": ctypes.c_int32}


class OverlappingModule:
    """The kernels of a cubin, loaded into the current context by cuda-bindings."""

    def __init__(self, cubin: bytes, kernels: Sequence[CompiledKernel]) -> None:
        from cuda.bindings import driver

        self._driver = driver
        self._module = self._check(driver.cuModuleLoadData(cubin), "loading the cubin")
        self._functions = {kernel.name: self._function(kernel) for kernel in kernels}

    def enqueue(self, kernel: CompiledKernel, blocks: int, arguments: Sequence[Any], stream: int) -> None:
        """Put one launch of `blocks` blocks on a stream; `arguments` are numpy scalars in its order. Raises VQ0807."""
        attribute = self._driver.CUlaunchAttribute()
        attribute.id = self._driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
        attribute.value.programmaticStreamSerializationAllowed = 1
        config = self._driver.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = blocks, 1, 1
        config.blockDimX, config.blockDimY, config.blockDimZ = kernel.launch.threads, 1, 1
        config.sharedMemBytes = kernel.launch.dynamic_shared_bytes
        config.hStream = stream
        config.attrs, config.numAttrs = [attribute], 1
        values = tuple(each.item() for each in arguments)
        types = tuple(_C_TYPES[each.dtype.name] for each in arguments)
        function = self._functions[kernel.name]
        self._check(self._driver.cuLaunchKernelEx(config, function, (values, types), 0), "launching a kernel")

    def _function(self, kernel: CompiledKernel) -> Any:
        found = self._check(
            self._driver.cuModuleGetFunction(self._module, kernel.name.encode()), f"looking for {kernel.name}"
        )
        attributes = self._driver.CUfunction_attribute
        settings = [
            (attributes.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, kernel.launch.dynamic_shared_bytes),
            (attributes.CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, kernel.launch.carveout_percent),
        ]
        for attribute, value in settings:
            if value:
                done = self._driver.cuFuncSetAttribute(found, attribute, value)
                self._check(done, "asking for shared memory")
        return found

    def _check(self, result: tuple[Any, ...], doing: str) -> Any:
        """The value of a cuda-bindings call, whose first element is its error."""
        error, *values = result
        if int(error) != 0:
            raise VqccError(
                Diagnostic(
                    "VQ0807", f"the CUDA driver failed while {doing}: {error.name}", help="run `vqcc doctor`"
                ),
                exit_code=ExitCode.NO_DEVICE,
            )
        return values[0] if values else None
