"""Beside a training that is the user's own: gradient noise read along the way, without changing a step of it."""

__all__: list[str] = []
