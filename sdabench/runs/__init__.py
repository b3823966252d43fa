"""Run the jobs of a suite, select a launcher for them, and estimate their time and disk space."""
