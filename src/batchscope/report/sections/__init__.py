"""Sections of the page of a plan, one file each: `build(plan, runs)` returns a section, whatever is missing.

From here: nothing but to `report.page`, which has their order. A section imports no other section.
"""
