"""Results that are written down: records, their JSON, files, results folders. It imports nothing of ours but errors.

From here: the names below; records from `store.records`, JSON from `store.codec`, files from `store.files`, which way a
metric improves from `store.metrics`, numbers as people give them from `store.quantities`, a missing measurement from
`store.not_applicable`, `store.versions.own_version`.
"""

from .runs import RunWriter, Store, StoredRun, free_folder, read_runs, run_id

__all__ = ["RunWriter", "Store", "StoredRun", "free_folder", "read_runs", "run_id"]
