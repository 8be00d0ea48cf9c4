"""The graded questions on 8-bit floats."""
