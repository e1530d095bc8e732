"""Tasks that a user brings, and the built-in ones: their protocol, loading, preflight, and making ready to run.

From here: `tasks.protocol`, `tasks.loading`, `tasks.workload`, `tasks.preflight.check`, `tasks.variants`, and
`tasks.batch_norm`, another variant. Nothing is trained here.
"""
