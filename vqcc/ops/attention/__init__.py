"""Attention over a quantized KV cache: what its kernels are held against."""
