"""The page of a study: sections and figures that all studies share."""
