"""Measurements of the course's own promises."""
