"""The page's sections, one file each; each has a `build(plan, runs)` that returns a section, whatever is missing."""
