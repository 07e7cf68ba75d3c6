"""Server logs: lines are read, filtered, counted, and alerts raised."""
