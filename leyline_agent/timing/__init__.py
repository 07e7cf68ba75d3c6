"""When to make edits: now, while a tool runs, or together with others later."""
