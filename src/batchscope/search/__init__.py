"""Which batch size and learning rate: the question, the state of a search, its stages, and the plan that follows.

From here: `search.find` and `search.stages` (they train, and need torch); everything else reasons over stored runs.
"""
