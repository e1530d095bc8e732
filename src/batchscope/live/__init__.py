"""Inside a training of the user's own: the gradient noise scale of a run that batchscope neither starts nor changes.

From here: `monitor.NoiseMonitor` (public as `batchscope.NoiseMonitor`) and `reading.Reading`. A source of readings is
one file of `sources/`, listed in `sources/__init__`.
"""
