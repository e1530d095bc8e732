"""Probes: measurements of gradients and weights, inside a training run or at given weights, one file each.

From here: one module a probe, and `probes.base`, which is all that the training loop imports of them. A probe imports
none of its siblings but the base, `fixed_loss` and the SGD with deferred updates.
"""
