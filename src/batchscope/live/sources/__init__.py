"""Where the noise rows of a running training come from: one file a source."""
