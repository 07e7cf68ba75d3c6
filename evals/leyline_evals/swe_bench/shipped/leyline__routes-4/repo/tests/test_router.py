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
