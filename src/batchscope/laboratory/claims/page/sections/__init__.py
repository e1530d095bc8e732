"""The sections of the page of the verdicts, one file each: `build(claims, evidence)` gives a `Section`.

Sections never import each other. What they share are the modules `themes`, `wording` and `drawing`
beside this folder.
"""
