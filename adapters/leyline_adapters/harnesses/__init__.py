"""Harnesses: one short file a framework, over what `native` does for all. docs/frameworks.md"""
