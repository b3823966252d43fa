"""Metrics as values, in percent."""
