"""Book-keeping: entries in, balances and a report out."""
