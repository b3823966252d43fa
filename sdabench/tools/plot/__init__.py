"""Draw figures of the paper's numbers and of runs."""
