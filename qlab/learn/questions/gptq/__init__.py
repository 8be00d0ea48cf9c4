"""Exercise set 06: GPTQ, from the layer's inputs to the loop over columns."""
