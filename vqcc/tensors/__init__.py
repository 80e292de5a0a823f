"""VQ tensors: their container, packing for the device, and the quantizers that make them."""
