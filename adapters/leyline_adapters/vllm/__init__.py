"""vLLM: an adapter for its server, and the KV connector that server loads."""
