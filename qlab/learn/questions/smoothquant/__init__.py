"""Exercise set 05: SmoothQuant, which moves outliers into the weights, and W8A8, which multiplies integers."""
