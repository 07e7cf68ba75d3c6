from routes.roads import read, total, without

TEXT = "a - b 10\nb > c 5\nnonsense\na - c 30\n"


def test_read():
    assert read(TEXT) == {"a": {"b": 10, "c": 30}, "b": {"a": 10, "c": 5}, "c": {"a": 30}}


def test_without():
    roads = read(TEXT)
    assert without(roads, ["b"]) == {"a": {"c": 30}, "c": {"a": 30}}
    assert "b" in roads["a"]


def test_total():
    assert total(read(TEXT)) == 45
    assert total(read("a > b 3\nb > a 4")) == 7
