"""Fits of measurements: intervals, curves, step time, memory, steps to target, noise scale, early stopping.

From here: one module a fit, each by its name. NumPy and SciPy only; no torch, no plan, no page.
"""
