"""Messages for conversations with the bundled engine."""

import random
import string

OLD = "Traceback (most recent call last): error in line 12. " * 8
TASK = [
    {"role": "system", "content": "You are a careful programmer."},
    {"role": "user", "content": OLD},
    {"role": "assistant", "content": "The tests run. " * 12},
    {"role": "user", "content": "List the folder. " * 12},
]
STUB = {"role": "user", "content": "[removed]"}
NEXT = {"role": "user", "content": "Now read the file again."}


def user(text):
    """What a user says."""
    return {"role": "user", "content": text}


def lines(n, seed=0):
    """Some 25 tokens a line, that hardly repeat one another."""
    rng = random.Random(seed)
    return "\n".join("".join(rng.choices(string.ascii_letters, k=24)) for _ in range(n))
