"""Anthropic's Messages API: its formats as chat messages, its client, its receipts."""
