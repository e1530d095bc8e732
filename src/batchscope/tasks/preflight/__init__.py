"""The single checks of the preflight, by what they look at."""
