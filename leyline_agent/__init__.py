"""Leyline: policies outside the engine edit an agent's cached context."""

from leyline_agent._version import __version__

__all__ = ["__version__"]
