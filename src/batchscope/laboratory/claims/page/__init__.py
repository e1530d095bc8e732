"""The page of the verdicts: what the texts say, and what the task says."""
