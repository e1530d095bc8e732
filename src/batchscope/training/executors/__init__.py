"""Where calls are done: in this process, or in several. The seam is `concurrent.futures.Executor`.

From here: `choose.choose` (which executor), `completed.completed` (results as they come), `reloadable_task` (a task
that another process loads again). `base` says what an executor keeps to; it and the executors import no torch.
"""
