"""Room of the libraries in which people train: tasks made from their objects, and callbacks for their trainers.

A library is imported only in its own part of this room, and only once it is used.
"""

__all__: list[str] = []
