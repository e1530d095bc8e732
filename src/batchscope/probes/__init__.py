"""Probes measure something inside a training run, one file each; the training loop knows their base only."""
