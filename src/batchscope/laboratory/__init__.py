"""What batch size does: studies, the statements of textbooks, the engine that makes their runs, their pages.

From here: `laboratory.study`, `laboratory.claims`, `laboratory.studies`. Only `engine`, `study` and what
measures (`measure.py` of a study) need torch.
"""
