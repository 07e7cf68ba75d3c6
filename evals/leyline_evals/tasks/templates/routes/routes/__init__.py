"""Roads between towns: the shortest way, rounds of deliveries, what they take."""
