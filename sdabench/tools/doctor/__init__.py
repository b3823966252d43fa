"""Diagnose the machine: can it reproduce the paper's numbers, and what could explain a wrong accuracy?"""
