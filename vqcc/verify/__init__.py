"""Validation: kernels against float64, on the CPU emulator or on a GPU."""
