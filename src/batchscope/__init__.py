"""batchscope: batch size, learning rate and steps for a PyTorch model, from cheap measurements."""

__version__ = "0.1.0"
