"""Benchmark networks side by side: throughput, latency, memory."""
