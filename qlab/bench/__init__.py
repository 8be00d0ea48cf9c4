"""Measurements: what the course promises, and kernels against what the device can do (`qlab bench`)."""
