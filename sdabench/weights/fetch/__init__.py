"""Weights that others publish, as files of this machine."""
