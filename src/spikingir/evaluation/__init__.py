"""Measures: image quality and energy."""
