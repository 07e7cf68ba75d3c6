"""Tool calls read from text and written as text."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline_agent.serving.tool_calls import ToolCallParser, parse_reply

TOOLS = [
    {"type": "function", "function": {"name": name, "description": "", "parameters": {}}}
    for name in ("bash", "read_file")
]


def block(name="bash", **arguments):
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def calls_of(reply):
    return [
        (call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in reply.tool_calls
    ]


def streamed(chunks, tools=TOOLS):
    """What comes out, text pieces joined, ids left out."""
    parser = ToolCallParser(tools)
    pieces = [piece for chunk in chunks for piece in parser.feed(chunk)] + parser.finish()
    result = []
    for piece in pieces:
        if not isinstance(piece, str):
            result.append(piece["function"])
        elif result and isinstance(result[-1], str):
            result[-1] += piece
        else:
            result.append(piece)
    return result


class TestParse:
    def test_text_alone(self):
        assert parse_reply("just text\n", TOOLS) == ("just text\n", [])

    def test_nothing(self):
        assert parse_reply("", TOOLS) == (None, [])

    def test_one_call(self):
        reply = parse_reply(block(command="ls -l"), TOOLS)
        assert reply.content is None
        assert calls_of(reply) == [("bash", {"command": "ls -l"})]
        assert reply.tool_calls[0]["type"] == "function"
        assert re.fullmatch("call_[0-9a-f]{24}", reply.tool_calls[0]["id"])

    def test_parallel_calls_have_ids_of_their_own(self):
        reply = parse_reply(f"{block(command='a')}\n{block('read_file', path='b')}", TOOLS)
        assert calls_of(reply) == [("bash", {"command": "a"}), ("read_file", {"path": "b"})]
        assert len({call["id"] for call in reply.tool_calls}) == 2

    def test_text_around_calls(self):
        text = f"Let me look.\n\n{block(command='ls')}\n{block(command='pwd')}\n\nDone. "
        reply = parse_reply(text, TOOLS)
        assert reply.content == "Let me look.\nDone. "
        assert len(reply.tool_calls) == 2

    @pytest.mark.parametrize(
        "inside",
        [
            '{"name": "bash", "parameters": {"command": "ls"}}',
            '{"name": "bash", "arguments": "{\\"command\\": \\"ls\\"}"}',
            '{"arguments": {"command": "ls"}, "name": "bash", "id": 3}',
            '\n\n  {"name": "bash",\n "arguments": {"command": "ls"}}  \n',
        ],
    )
    def test_ways_to_write_a_call(self, inside):
        reply = parse_reply(f"<tool_call>{inside}</tool_call>", TOOLS)
        assert calls_of(reply) == [("bash", {"command": "ls"})]

    def test_no_arguments(self):
        reply = parse_reply('<tool_call>{"name": "bash"}</tool_call>', TOOLS)
        assert calls_of(reply) == [("bash", {})]

    def test_a_raw_newline_inside_a_string(self):
        text = '<tool_call>{"name": "bash", "arguments": {"command": "a\nb"}}</tool_call>'
        assert calls_of(parse_reply(text, TOOLS)) == [("bash", {"command": "a\nb"})]

    def test_tags_inside_a_string(self):
        command = "echo '</tool_call>' '<tool_call>'"
        reply = parse_reply(block(command=command), TOOLS)
        assert calls_of(reply) == [("bash", {"command": command})]
        assert reply.content is None

    def test_a_reply_that_ends_without_the_closing_tag(self):
        whole = block(command="ls")
        for cut in range(1, len("\n</tool_call>") + 1):
            assert calls_of(parse_reply(whole[:-cut], TOOLS)) == [("bash", {"command": "ls"})]

    def test_text_only_behind_a_call(self):
        assert parse_reply(f"{block()}\nDone.", TOOLS).content == "Done."

    def test_an_unknown_name_is_still_a_call(self):
        assert calls_of(parse_reply(block("rm_rf"), TOOLS)) == [("rm_rf", {})]

    def test_arguments_stay_readable(self):
        [call] = parse_reply(block(text="é 漢字"), TOOLS).tool_calls
        assert call["function"]["arguments"] == '{"text": "é 漢字"}'

    def test_half_a_surrogate_pair_can_be_sent_on(self):
        text = '<tool_call>{"name": "bash", "arguments": {"command": "\\ud83d"}}</tool_call>'
        [call] = parse_reply(text, TOOLS).tool_calls
        assert call["function"]["arguments"].encode() == b'{"command": "\\ud83d"}'

    def test_without_tools_all_is_text(self):
        text = f" a {block()} {{\n"
        assert parse_reply(text, []) == (text, [])


MALFORMED = [
    "<tool_call>\nnot json\n</tool_call>",
    '<tool_call>{"name": "bash", "arguments": {"a": 1}</tool_call>',
    '<tool_call>{"name": "bash", "arguments": {"a": "open}}</tool_call>',
    '<tool_call>{"name": 3}</tool_call>',
    '<tool_call>{"name": ""}</tool_call>',
    '<tool_call>{"arguments": {}}</tool_call>',
    '<tool_call>{"name": "bash", "arguments": [1]}</tool_call>',
    '<tool_call>{"name": "bash", "arguments": "ls"}</tool_call>',
    '<tool_call>[{"name": "bash"}]</tool_call>',
    '<tool_call>{"name": "bash"} and more</tool_call>',
    "<tool_call></tool_call>",
    "<tool_call>",
    '<tool_call>{"name": "bash", "argum',
    "<tool_call>" * 3,
    '<tool_call>{"name": ' + '{"a": ' * 20_000 + "</tool_call>",
    '<tool_call>{"name": "bash", "arguments": {"n": ' + "9" * 5000 + "}}</tool_call>",
    "</tool_call>",
]


class TestMalformed:
    @pytest.mark.parametrize("text", MALFORMED, ids=range(len(MALFORMED)))
    def test_stays_text(self, text):
        assert parse_reply(text, TOOLS) == (text, [])
        assert streamed(f"before {text} after") == [f"before {text} after"]

    @pytest.mark.parametrize("text", MALFORMED[:-1], ids=range(len(MALFORMED) - 1))
    def test_does_not_hide_the_next_call(self, text):
        # Behind an open string nothing can be told from the string.
        if "open" in text or "argum" in text:
            text += '"'
        reply = parse_reply(f"{text}\n{block(command='ls')}", TOOLS)
        assert calls_of(reply) == [("bash", {"command": "ls"})]
        assert reply.content == text


class TestBareJson:
    def test_llama_style(self):
        reply = parse_reply('{"name": "bash", "parameters": {"command": "ls"}}', TOOLS)
        assert reply.content is None
        assert calls_of(reply) == [("bash", {"command": "ls"})]

    @pytest.mark.parametrize("between", ["; ", "\n", ";\n", ""])
    def test_several(self, between):
        one = '{"name": "bash", "parameters": {"command": "ls"}}'
        reply = parse_reply(f"<|python_tag|>{one}{between}{one}\n", TOOLS)
        assert calls_of(reply) == [("bash", {"command": "ls"})] * 2

    @pytest.mark.parametrize(
        "text",
        [
            '{"name": "Ada", "age": 36}',
            '{"name": "bash"} is what I would call',
            '{"name": "bash"',
            "{",
            "{} ",
            '  {"answer": 42}\n',
            "<|python_tag|>print(1)",
        ],
    )
    def test_an_answer_in_json_stays_an_answer(self, text):
        assert parse_reply(text, TOOLS) == (text, [])

    def test_a_block_behind_json(self):
        reply = parse_reply('{"plan": 1}\n' + block(command="ls"), TOOLS)
        assert reply.content == '{"plan": 1}'
        assert calls_of(reply) == [("bash", {"command": "ls"})]


fragments = st.sampled_from(
    [
        "<tool_call>",
        "</tool_call>",
        "<tool_",
        '{"name": "bash", "arguments": {"command": "ls"}}',
        '{"name": "bash", "parameters": {',
        "}",
        '"',
        "\n",
        " ",
        "text",
        "<",
        block(command="</tool_call>", path="é漢", force=True),
        block("read_file", path="\\u00e9\n", depth=-1.5e3, limit=None),
        "<|python_tag|>",
    ]
)


class TestStreaming:
    @given(st.lists(fragments, max_size=8), st.data())
    @settings(deadline=None, max_examples=300)
    def test_chunks_do_not_matter(self, parts, data):
        text = "".join(parts)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=20)))
        chunks = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        whole = streamed([text])
        assert streamed(chunks) == whole
        assert streamed(text) == whole

    @given(st.lists(fragments, max_size=8))
    @settings(deadline=None)
    def test_no_text_is_lost(self, parts):
        text = "".join(parts)
        rest = re.sub(r"\s", "", text)
        for piece in streamed([text]):
            if isinstance(piece, str):
                said = re.sub(r"\s", "", piece)
                assert rest.startswith(said)
                rest = rest[len(said) :]
            else:  # a block, or a bare call
                rest = rest.removeprefix("<|python_tag|>").removeprefix("<tool_call>")
                written, end = json.JSONDecoder().raw_decode(rest)
                assert written["name"] == piece["name"]
                behind = rest[end:]
                cut = "</tool_call"[: len(behind)] == behind  # the reply ends inside the tag
                rest = "" if cut else behind.removeprefix("</tool_call>")
        assert rest == ""

    def test_text_is_given_out_at_once(self):
        parser = ToolCallParser(TOOLS)
        assert parser.feed("Hello") == ["Hello"]
        assert parser.feed(" <tool") == []
        assert parser.feed("box>") == [" <toolbox>"]

    def test_literals_behind_a_tag_in_a_string(self):
        assert len(streamed(block(command="</tool_call>", force=True, path="é漢"))) == 1

    def test_a_bare_call_behind_the_python_tag(self):
        text = '<|python_tag|>{"name": "bash", "parameters": {}}'
        assert streamed(text) == [{"name": "bash", "arguments": "{}"}]

    def test_nothing_of_a_block_is_given_out(self):
        parser = ToolCallParser(TOOLS)
        said = [piece for char in f"Ok {block(command='ls')}" for piece in parser.feed(char)]
        assert said[:2] == ["O", "k"]
        assert [type(piece) for piece in said[2:]] == [dict]

    def test_a_call_is_given_out_when_its_block_closes(self):
        parser = ToolCallParser(TOOLS)
        whole = block(command="ls")
        assert parser.feed(whole[:-1]) == []
        assert len(parser.feed(whole[-1])) == 1
        assert parser.finish() == []
