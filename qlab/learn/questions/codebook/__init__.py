"""Exercise set 03: codebooks, the NF4 table, blocks, and what they cost."""
