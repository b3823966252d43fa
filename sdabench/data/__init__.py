"""Datasets, and the checks that they are what they claim to be."""
