"""Loading models and what the engine must know of them."""
