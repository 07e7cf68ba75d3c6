"""Many conversations at once against one engine: hit rates and times under load."""
