"""Adds up a ledger by category and month."""
