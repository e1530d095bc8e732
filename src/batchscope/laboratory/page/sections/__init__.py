"""The sections that the page of every study has, one file each with `build(study, runs)`; they never import each other.

What they share, the mean course of an arm over its seeds and its phases, is in `batchscope.laboratory.courses`.
"""
