"""What a value weighs on a shelf."""


def size_of(value):
    """Characters of text, bytes of bytes, the sum for a list or tuple, one for all else."""
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, (list, tuple)):
        return sum(size_of(item) for item in value)
    return 1
