"""The sections of the page of the verdicts, one file each: `build(claims, evidence)` gives a `Section`.

Sections never import each other. What they share are the modules `claims_themes`, `claims_text` and `claims_drawing`
beside this folder.
"""
