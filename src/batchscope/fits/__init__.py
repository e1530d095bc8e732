"""Fits of what was measured: NumPy and SciPy only, no torch."""
