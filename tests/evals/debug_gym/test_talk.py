from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyline_evals.debug_gym import talk
from leyline_evals.debug_gym.talk import asked
from leyline_evals.tasks import generate


def called(name: str, arguments: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "function": function}]}


@pytest.mark.parametrize(
    ("name", "arguments", "reads", "writes"),
    [
        ("view", {"path": "a.py"}, ("a.py",), ()),
        ("edit", {"path": "a.py", "new_code": "x"}, (), ("a.py",)),
        ("bash", {"command": "cat a.py && sed -n 1,5p b.py"}, ("a.py", "b.py"), ()),
        ("bash", {"command": "sed -i s/a/b/ a.py"}, (), ("a.py",)),
        ("eval", {}, (), ()),
        ("view", {"path": 7}, (), ()),
    ],
)
def test_a_call_is_taken_with_what_it_reads_and_writes(
    name: str, arguments: dict[str, Any], reads: tuple[str, ...], writes: tuple[str, ...]
) -> None:
    found = asked(called(name, json.dumps(arguments)), "tools")
    assert found.call == {"id": "c1", "name": name, "arguments": arguments}
    assert (found.action, found.reads, found.writes) == (name, reads, writes)


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        ({"role": "assistant", "content": "I would edit it."}, "makes no tool call"),
        (called("edit", "{'path'"), "arguments of edit are no JSON"),
        (called("edit", "[1]"), "no JSON object"),
    ],
)
def test_a_reply_without_a_call_is_told_so(reply: dict[str, Any], problem: str) -> None:
    found = asked(reply, "tools")
    assert found.call is None
    assert problem in (found.problem or "")
    assert found.action == "malformed"


def test_an_unknown_tool_is_debug_gyms_to_refuse() -> None:
    found = asked(called("rm", "{}"), "tools")
    assert found.call is not None
    assert found.action == "unknown"


def test_plain_text_is_read_strictly() -> None:
    reply = "So:\n```bash\nview calc.py 3 9\n```"
    found = asked({"role": "assistant", "content": reply}, "text")
    assert found.call == {
        "id": None,
        "name": "view",
        "arguments": {"path": "calc.py", "start": 3, "end": 9},
    }
    reply = "```python calc.py\nx = 1\n```"
    found = asked({"role": "assistant", "content": reply}, "text")
    assert found.call is not None
    assert found.call["arguments"] == {"path": "calc.py", "new_code": "x = 1\n"}
    found = asked({"role": "assistant", "content": "x = 1"}, "text")
    assert "Format error" in (found.problem or "")


@given(
    st.dictionaries(
        st.sampled_from(["content", "tool_calls"]),
        st.none()
        | st.text()
        | st.lists(st.fixed_dictionaries({}, optional={"function": st.none()})),
    ),
    st.sampled_from(["tools", "text"]),
)
def test_no_reply_makes_it_raise(reply: dict[str, Any], protocol: talk.Protocol) -> None:
    if isinstance(reply.get("tool_calls"), str):
        del reply["tool_calls"]
    found = asked(reply, protocol)
    assert (found.call is None) == (found.problem is not None)


@pytest.mark.parametrize("protocol", ["tools", "text"])
def test_the_script_writes_the_gold_down(protocol: talk.Protocol) -> None:
    problem = generate(2, 4)
    written = {}
    names = []
    for reply in talk.script(problem, protocol):
        message = {"role": "assistant", "content": reply} if isinstance(reply, str) else reply
        found = asked(message, protocol)  # type: ignore[arg-type]
        assert found.call is not None
        names.append(found.action)
        if found.action == "edit":
            written[found.call["arguments"]["path"]] = found.call["arguments"]["new_code"]
    assert written == problem.gold
    assert names[-2:] == ["eval", "submit"]


def test_each_tool_is_told_of_in_plain_text() -> None:
    said = talk.system("text")
    assert all(tool in said for tool in talk.TOOLS if tool != "edit")
    assert "```python path/to/file.py" in said
    assert "tool call a turn" in talk.system("tools")


def test_the_first_prompt_ends_with_what_a_small_model_needs() -> None:
    said = talk.last("text")
    assert said.endswith("in one block that begins with ```python and the path.")
    assert "eval" not in said
    assert talk.last("tools") == ""


@pytest.mark.parametrize("seed", range(3))
def test_the_easiest_shows_its_file_as_it_is_written(seed: int) -> None:
    problem = generate(seed, 1)
    (path,) = problem.gold
    found = asked({"role": "assistant", "content": problem.instructions}, "text")
    assert found.call is not None
    assert found.call["arguments"] == {"path": path, "new_code": problem.files[path]}
