"""Exercise set 07, second part: HQQ, which moves the zero-points and needs no data."""
