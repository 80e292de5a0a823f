"""Running compiled libraries on a GPU: PyCUDA behind one module, timing by CUDA graphs."""
