"""Passes over problems of attention: keys and values are two quantized operands, in codes of one layout."""
