"""Exercise set 04: int8 codes of activations, outlier channels, and the decomposition of LLM.int8()."""
