from routes.roads import read, total, without


def test_read():
    assert read("") == {}
    assert read("x > y 1") == {"x": {"y": 1}, "y": {}}
    assert read("x - y 1\ny > x 4\nx = z 3") == {"x": {"y": 1}, "y": {"x": 4}}


def test_without():
    roads = {"a": {"b": 1, "c": 2}, "b": {"a": 1}, "c": {}}
    assert without(roads, []) == roads
    assert without(roads, ["a", "c"]) == {"b": {}}
    assert roads == {"a": {"b": 1, "c": 2}, "b": {"a": 1}, "c": {}}


def test_total():
    assert total({}) == 0
    assert total(read("b - a 3\nb - c 4\nc > a 9")) == 16
    assert total(read("b > a 3")) == 3
