"""Tasks that need no training script: `digits` (shipped), `arrays` and `text` (a user's own file)."""
