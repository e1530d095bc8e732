"""From a task and a configuration to a stored run: the loop, its stop rules, preparation, the runner, executors.

From here: `training.loop`, `training.stopping`, `training.prepare`, `training.runner`, `training.executors`.
Modules that need numbers only (`stopping`, `limits`, `progress`, `count`, `glossary`) import no torch.
"""
