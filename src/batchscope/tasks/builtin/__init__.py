"""Built-in tasks, which need no training script: `digits` (shipped), `arrays` and `text` (a user's own file).

From here: one factory a module, found by its name (`tasks.loading`); the others read data and make models for them.
"""
