"""Estimates with intervals, from pairs, repeats, ranks and spreads. Numbers only."""
