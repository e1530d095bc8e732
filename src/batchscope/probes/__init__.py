"""Probes measure something inside a training run; one file each. The training loop knows the base and no concrete probe."""
