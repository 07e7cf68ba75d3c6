"""`leyline eval swe-bench`: mini-swe-agent's loop, swebench's grading, instances of our own."""
