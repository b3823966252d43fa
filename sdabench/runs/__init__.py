"""Runs: the jobs of a suite, where they are launched, and what they will take."""
