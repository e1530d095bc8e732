"""Schema number of the records in files; a change that old readers cannot read raises it."""

SCHEMA = 1
