"""The units, from the longest to the shortest."""

UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
