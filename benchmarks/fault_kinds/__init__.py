"""Kinds of faults for `benchmarks/faults.py`, one module each; a new kind is one file, and a line in `faults.KINDS`.

A module has `faults(quick)`, which yields each `Fault`: what is tried, in words, and the function that tries it in an
empty folder and returns what was `Seen`. `case` has these records and the commands in processes of their own.
"""
