"""A warehouse: what lies there, what it costs, which orders can be sent."""
