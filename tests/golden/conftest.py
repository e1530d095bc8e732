"""What lies here is a script and its parts: `python tests/golden/check.py` runs them, pytest does not."""

collect_ignore_glob = ["*.py"]
