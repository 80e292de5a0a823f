"""Every diagnostic code and its short title; the hundreds digit is the area.

Add a code at the end of its area. A code that was released is never renumbered or reused.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_YAML = {
    "VQ0101": "the file cannot be read",
    "VQ0102": "the file is too large",
    "VQ0103": "the file is not UTF-8 text",
    "VQ0104": "a character that YAML does not allow",
    "VQ0105": "YAML syntax",
    "VQ0106": "YAML anchors and aliases are not accepted",
    "VQ0107": "YAML tags and directives are not accepted",
    "VQ0108": "YAML merge keys are not accepted",
    "VQ0109": "duplicate key",
    "VQ0110": "nested too deep",
    "VQ0111": "too many YAML nodes",
    "VQ0112": "several YAML documents in one file",
    "VQ0113": "the file holds no spec",
    "VQ0114": "a key is not plain text",
}

_MODEL = {
    "VQ0201": "unknown field",
    "VQ0202": "missing field",
    "VQ0203": "wrong type",
    "VQ0204": "number out of range",
    "VQ0205": "not a power of two",
    "VQ0206": "unknown value",
    "VQ0207": "not an identifier",
    "VQ0208": "name that is reserved or taken",
    "VQ0209": "list is empty or too long",
    "VQ0210": "repeated value in a list",
    "VQ0211": "unknown algorithm family",
    "VQ0212": "unknown op",
    "VQ0213": "unsupported spec version",
    "VQ0214": "text of the wrong form",
    "VQ0215": "values that contradict each other",
    "VQ0216": "the op cannot be divided so",
    "VQ0217": "a layer that ranks cannot share evenly",
    "VQ0218": "layers that cannot be fused",
    "VQ0219": "a whole model where one layer is meant",
}

_MEANING = {
    "VQ0301": "unknown preset",
    "VQ0302": "the algorithm does not suit the op",
    "VQ0303": "an axis is not a multiple of the vector size",
    "VQ0304": "tile columns are not a multiple of the vector size",
    "VQ0305": "code width does not match the number of entries",
    "VQ0306": "fewer vectors than entries",
    "VQ0307": "a 32-bit index would overflow",
    "VQ0308": "the GPU does not compute in this type",
    "VQ0309": "a scale group does not fit the vectors or the axis",
    "VQ0310": "vector direction not offered",
    "VQ0311": "more entries than a code can name",
    "VQ0312": "the algorithm does not offer this scope",
    "VQ0313": "the algorithm does not offer these scales",
    "VQ0314": "more entries cached than a table has",
    "VQ0315": "the level has no cache boundaries",
    "VQ0316": "no tensor of the profile fits the spec",
    "VQ0317": "the level leaves nothing to tune",
    "VQ0318": "times of a lock file are old or cannot be used",
    "VQ0319": "algorithms of keys and of values where one is meant",
    "VQ0320": "a part of a spec that the op does not take",
}

_GPU_AND_PLAN = {
    "VQ0401": "unknown GPU",
    "VQ0402": "GPU limits contradict each other",
    "VQ0403": "shared memory a level needs exceeds the GPU's",
    "VQ0404": "the name of a built-in GPU",
    "VQ0405": "no block of a kernel fits the GPU",
    "VQ0406": "cache boundaries that the GPU cannot have",
    "VQ0407": "no one known GPU is this device",
    "VQ0408": "the device is of another architecture than the GPU named",
    "VQ0409": "a measurement that no GPU can have",
}

_TENSOR = {
    "VQ0501": "the tensor file cannot be read",
    "VQ0502": "not a safetensors file",
    "VQ0503": "the header reaches past the end of the file",
    "VQ0504": "the header is not JSON",
    "VQ0505": "a header entry is malformed",
    "VQ0506": "unknown element type",
    "VQ0507": "tensor data reaches past the end of the file",
    "VQ0508": "tensors overlap in the file",
    "VQ0509": "bytes of the file belong to no tensor",
    "VQ0510": "shape and size of a tensor disagree",
    "VQ0511": "the file holds no VQ tensors",
    "VQ0512": "malformed vqcc metadata",
    "VQ0513": "the metadata describes no valid algorithm",
    "VQ0514": "no tensor of this name",
    "VQ0515": "several tensors to choose from",
    "VQ0516": "the header is too long",
    "VQ0517": "part of a VQ tensor is missing",
    "VQ0518": "a VQ tensor has a part its algorithm does not use",
    "VQ0519": "part of a VQ tensor has the wrong type",
    "VQ0520": "part of a VQ tensor has the wrong shape",
    "VQ0521": "code out of range",
    "VQ0522": "a codebook holds a value that is not finite",
    "VQ0523": "a scale is not finite",
    "VQ0524": "weights of this type are not accepted",
    "VQ0525": "a weight is not a matrix",
    "VQ0526": "a weight is not finite",
    "VQ0527": "the tensor file cannot be written",
    "VQ0528": "the quantizer is not installed",
    "VQ0529": "two tensors of one name",
    "VQ0530": "not a file of packed weights",
    "VQ0531": "weights were packed for another layout",
    "VQ0532": "not the index of a sharded tensor file",
    "VQ0533": "a shard or a tensor of an index is missing",
    "VQ0534": "a tensor is in two shards",
    "VQ0535": "a directory without one index",
    "VQ0536": "the profile cannot be read",
    "VQ0537": "not a profile",
    "VQ0538": "the profile has a format this vqcc does not know",
    "VQ0539": "the profile is damaged",
    "VQ0540": "codes other than those of the library's profile",
    "VQ0541": "the plotting package is not installed",
    "VQ0542": "a plot that cannot be drawn so",
    "VQ0543": "parts of a tensor are too small to be counted",
    "VQ0544": "weights were packed in another order of entries",
    "VQ0545": "packed weights are not those of the tensor",
    "VQ0546": "Fisher weights for a weight",
    "VQ0547": "residual stages add up past float16",
    "VQ0548": "weights that cannot be fused",
    "VQ0549": "codes and codebooks take no less than the weight",
}

_TOOLCHAIN = {
    "VQ0601": "the toolchain is missing",
    "VQ0602": "the CUDA headers are missing",
    "VQ0603": "the emitted code does not compile",
    "VQ0604": "the toolchain cannot compile for this GPU",
    "VQ0605": "the toolchain cannot be run",
    "VQ0606": "the cubin is not what was asked for",
    "VQ0607": "no tile of the kernel fits the registers",
    "VQ0608": "multiplies are serialized",
    "VQ0609": "a source does not compile",
    "VQ0610": "an include leads nowhere",
    "VQ0611": "kernels that one header cannot name",
    "VQ0612": "no kernel that a program can find",
}

_FILES = {
    "VQ0701": "a file cannot be read or written",
    "VQ0702": "the compile cache cannot be used",
    "VQ0703": "the directory holds files that vqcc did not write",
    "VQ0704": "not a bundle",
    "VQ0705": "the bundle is damaged",
    "VQ0706": "the bundle has a format this vqcc does not know",
    "VQ0707": "not a file name for a bundle",
    "VQ0708": "another process writes beside this directory",
    "VQ0709": "two libraries would have one directory or one symbol",
    "VQ0710": "unknown diagnostic code",
    "VQ0711": "an output is an input or another output",
    "VQ0712": "an output is no file",
    "VQ0713": "a library of another kind of op",
}

_VALIDATION = {
    "VQ0801": "validation mismatch",
    "VQ0802": "the library lacks what this backend runs",
    "VQ0803": "the tensor does not fit the library",
    "VQ0804": "a kernel wrote outside its output",
    "VQ0805": "the library was not compiled for this GPU",
    "VQ0806": "no usable CUDA device",
    "VQ0807": "the CUDA driver reported an error",
    "VQ0808": "a repeated launch gave another result",
    "VQ0820": "no host compiler for the emulator",
    "VQ0821": "the emulator's runtime does not compile",
    "VQ0822": "the emitted code does not compile for the emulator",
    "VQ0823": "no kernel of this name",
    "VQ0824": "arguments do not fit the kernel",
    "VQ0825": "not a launch a GPU accepts",
    "VQ0826": "not enough memory to emulate the launch",
    "VQ0827": "the compiled kernels cannot be loaded",
    "VQ0830": "access outside of every buffer",
    "VQ0831": "read of memory that nothing has written",
    "VQ0832": "write to memory that is only read",
    "VQ0833": "missing barrier",
    "VQ0834": "race between blocks",
    "VQ0835": "misaligned access",
    "VQ0836": "divergent barrier",
    "VQ0837": "lanes of a warp operation do not meet",
    "VQ0838": "the kernel does not end",
    "VQ0839": "the kernel was stopped by a fault",
    "VQ0840": "an asynchronous copy was never waited for",
    "VQ0841": "shared memory of a block that may not be there",
    "VQ0842": "misuse of a barrier of stages",
    "VQ0843": "misuse of a multiply that takes its time",
}

_INTERNAL = {
    "VQ0901": "internal error",
}

CODES: Mapping[str, str] = MappingProxyType(
    {
        **_YAML,
        **_MODEL,
        **_MEANING,
        **_GPU_AND_PLAN,
        **_TENSOR,
        **_TOOLCHAIN,
        **_FILES,
        **_VALIDATION,
        **_INTERNAL,
    }
)
