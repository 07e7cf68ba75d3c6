import pytest

from shelf import Shelf, size_of


def test_a_shelf_needs_room():
    with pytest.raises(ValueError, match="at least 1"):
        Shelf(0)


def test_what_was_used_longest_ago_goes_first():
    shelf = Shelf(capacity=2)
    shelf.put("a", 1)
    shelf.put("b", 2)
    assert shelf.get("a") == 1
    shelf.put("c", 3)
    assert "b" not in shelf
    assert shelf.get("a") == 1


def test_what_is_too_large_is_not_kept():
    shelf = Shelf(capacity=3)
    assert not shelf.put("a", "four")
    assert len(shelf) == 0


def test_dropping_makes_room():
    shelf = Shelf(capacity=3)
    shelf.put("a", "abc")
    shelf.drop("a")
    shelf.drop("a")
    assert shelf.used == 0


def test_sizes():
    assert size_of(["ab", b"c", (1, 2)]) == 5
