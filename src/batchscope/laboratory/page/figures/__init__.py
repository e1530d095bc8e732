"""Figures of named studies; what several of them draw."""
