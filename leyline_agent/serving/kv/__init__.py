"""The KV cache: slots, sequences of segments, prefix trees, splices."""
