"""Where work is done: in this process, or in several. The seam is that of `concurrent.futures`."""
