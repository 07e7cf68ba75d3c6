"""The OpenAI-compatible HTTP server."""

from leyline_agent.serving.server.app import create_app

__all__ = ["create_app"]
