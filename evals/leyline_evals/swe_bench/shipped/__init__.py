"""Instances of our own, in swebench 5's format, that need no image, no hub and no network."""
