"""llama.cpp in this process, through llama-cpp-python's low-level API."""
