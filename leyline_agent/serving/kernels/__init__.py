"""Attention and rotation kernels, each beside its reference."""
