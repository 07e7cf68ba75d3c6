"""A shelf: values by key, up to a total size."""

from collections import OrderedDict

from shelf.size import size_of


class Shelf:
    """Holds values whose sizes sum up to `capacity`; what was used longest ago goes first."""

    def __init__(self, capacity):
        if capacity < 1:
            raise ValueError(f"a shelf holds at least 1, not {capacity}")
        self.capacity = capacity
        self.used = 0
        self.evicted = 0
        self._values = OrderedDict()

    def __contains__(self, key):
        return key in self._values

    def __len__(self):
        return len(self._values)

    def get(self, key, default=None):
        """The value of a key, which is then the one used last."""
        if key not in self._values:
            return default
        self._values.move_to_end(key)
        return self._values[key]

    def put(self, key, value):
        """Keep a value, in the place of the key's old one; False when it is too large."""
        size = size_of(value)
        if size > self.capacity:
            return False
        self.drop(key)
        self.used += size
        self._values[key] = value
        self._values.move_to_end(key)
        while self.used > self.capacity:
            self._evict()
        return True

    def drop(self, key):
        """Forget a key; nothing happens when it is not there."""
        if key in self._values:
            self.used -= size_of(self._values.pop(key))

    def _evict(self):
        _, value = self._values.popitem(last=False)
        self.used -= size_of(value)
        self.evicted += 1
