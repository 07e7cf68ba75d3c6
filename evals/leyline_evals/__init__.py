"""Replays, fidelity benchmarks and solve-rate evals."""
