"""Store results as records, each with its environment and its predictions."""
