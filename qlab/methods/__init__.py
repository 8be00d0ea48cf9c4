"""How to choose the numbers that a format stores. One file per method."""
