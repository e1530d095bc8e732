"""Measurements that somebody already has: read from a file, turned into the state of a search, answered by a plan."""
