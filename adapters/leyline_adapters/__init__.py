"""Adapters to engines and harnesses, found through the `leyline.adapters` entry points."""
