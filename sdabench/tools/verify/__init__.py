"""Verify a dataset: counts, names, broken and duplicate files, order of the labels."""
