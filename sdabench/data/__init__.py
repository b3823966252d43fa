"""Read, verify and generate datasets."""
