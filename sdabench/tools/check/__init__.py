"""The regression gate: compare counts, outputs, predictions and metrics with golden files."""
