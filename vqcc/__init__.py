"""vqcc: an ahead-of-time compiler from vector-quantization specs to CUDA kernel libraries."""

__version__ = "0.1.0"
