"""What textbooks say about batch size, each statement with a verdict measured on a task.

From here: `laboratory.claims.run` (measures, needs torch), `laboratory.claims.decide` (stored runs only), `records`.
"""
