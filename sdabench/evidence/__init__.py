"""What was measured, and what comparing it with the paper's claims says."""
