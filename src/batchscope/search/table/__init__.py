"""Measurements that somebody already has: read from a file, turned into findings, answered by a plan."""
