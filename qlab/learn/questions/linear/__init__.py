"""Exercise set 02: linear quantization, from one scale to packed bits."""
