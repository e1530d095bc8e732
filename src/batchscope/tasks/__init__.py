"""What a user brings: the protocol of a task, how one is loaded, checked and made ready to run, and the built-in ones.

From here: `tasks.protocol`, `tasks.loading`, `tasks.workload`, `tasks.preflight`, variants of a task. No training here.
"""
