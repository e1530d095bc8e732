"""The number of the form in which records stand in files; a change that old readers cannot read raises it."""

SCHEMA = 1
