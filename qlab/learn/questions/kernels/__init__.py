"""Exercise set 09: Triton kernels, from a tile with strides to a fused 4-bit product."""
