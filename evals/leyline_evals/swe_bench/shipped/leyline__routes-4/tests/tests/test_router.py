import pytest

from routes import BadPattern, NoRoute, Router


@pytest.fixture
def router():
    router = Router()
    router.add("/", "home")
    router.add("/users", "list")
    router.add("/users/<name>", "show")
    router.add("/users/<name>/posts/<number>", "post")
    return router


def test_fixed_parts(router):
    assert router.match("/") == ("home", {})
    assert router.match("/users/") == ("list", {})


def test_parameters(router):
    assert router.match("/users/ann") == ("show", {"name": "ann"})
    assert router.match("/users/ann/posts/7") == ("post", {"name": "ann", "number": "7"})


def test_no_route(router):
    with pytest.raises(NoRoute):
        router.match("/posts")


@pytest.mark.parametrize("pattern", ["users", "/<a>/<a>", "/<>"])
def test_bad_patterns(router, pattern):
    with pytest.raises(BadPattern):
        router.add(pattern, "x")


def test_fixed_parts_win_whatever_was_added_first(router):
    router.add("/users/me", "self")
    assert router.match("/users/me") == ("self", {})
    assert router.match("/users/ann") == ("show", {"name": "ann"})


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_the_one_whose_fixed_parts_come_earlier(order):
    router = Router()
    for pattern in ["/<x>/b/c", "/a/<x>/c", "/a/b/<x>"][::order]:
        router.add(pattern, pattern)
    assert router.match("/a/b/c") == ("/a/b/<x>", {"x": "c"})
    assert router.match("/a/z/c") == ("/a/<x>/c", {"x": "z"})


def test_parameters_are_unquoted(router):
    assert router.match("/users/ann%20lee") == ("show", {"name": "ann lee"})
    assert router.match("/users/a%2Fb") == ("show", {"name": "a/b"})
