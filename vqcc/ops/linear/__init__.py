"""Products of rows of x with a quantized weight: what gemv, gemm and linear share, and linear itself (model).

The op linear is made of gemv and gemm, which are made of the rest of this package: nothing is imported here.
"""
