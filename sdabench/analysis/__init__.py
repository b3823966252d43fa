"""Analyze what networks do: depth weights, effective receptive fields, saliency."""
