"""The graded questions on the quantized KV cache."""
