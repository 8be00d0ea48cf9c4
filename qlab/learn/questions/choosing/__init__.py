"""Exercise set 11: what quantization does to answers, how many examples it takes to see it, and what to do about it."""
