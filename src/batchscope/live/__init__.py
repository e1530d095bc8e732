"""For a training that is the user's own: a monitor of its gradient noise."""
