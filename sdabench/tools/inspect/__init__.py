"""Inspect depth weights and receptive fields of networks."""
