"""Tasks and callbacks made from the objects of other libraries, one file a library."""

__all__: list[str] = []
