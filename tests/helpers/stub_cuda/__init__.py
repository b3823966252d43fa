"""CUDA without a GPU: a stub of the runtime, and tensors that claim to be on its devices."""
