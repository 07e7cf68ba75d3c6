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


def test_a_key_put_again_counts_once():
    shelf = Shelf(capacity=10)
    shelf.put("a", "x" * 4)
    for _ in range(5):
        shelf.put("b", "y" * 4)
    assert shelf.used == 8
    assert "a" in shelf
    assert shelf.evicted == 0


def test_a_key_put_again_may_shrink():
    shelf = Shelf(capacity=10)
    shelf.put("a", "x" * 9)
    shelf.put("a", "x")
    assert shelf.used == 1


def test_a_value_too_large_leaves_the_old_one():
    shelf = Shelf(capacity=4)
    shelf.put("a", "old")
    assert not shelf.put("a", "far too large")
    assert shelf.get("a") == "old"
