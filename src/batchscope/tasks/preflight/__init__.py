"""Preflight of a task: `check` makes all checks, the other modules one kind each.

From here: `preflight.check`. What would make every later measurement meaningless ends in one message.
"""
