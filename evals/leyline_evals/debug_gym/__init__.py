"""`leyline eval debug-gym`: problems solved in the real debug-gym, in a sandbox."""
