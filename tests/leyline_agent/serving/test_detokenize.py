"""Streaming text against decoding the whole reply."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from leyline_agent.errors import EngineError
from leyline_agent.serving.detokenize import Detokenizer, overlap
from leyline_agent.serving.models.load import load_tokenizer

TEXT = "Ok: naïve 漢字 👩‍👩‍👧 \U0001f1e9\U0001f1ea .  , it 's\n\tdef f(x):\n    return x\n"


def byte_level():
    """One token a byte, so that every character beyond ASCII comes in parts."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({char: i for i, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")


def sentence_piece():
    """Metaspace with byte fallback, as Llama 2's: a leading space is stripped."""
    words = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁it", "▁is", "it", "."]
    tokenizer = Tokenizer(
        models.BPE({word: i for i, word in enumerate(words)}, [], byte_fallback=True)
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


BYTES = byte_level()
PIECES = sentence_piece()


def ids_of(text):
    return BYTES.encode(text, add_special_tokens=False)


def stream(tokenizer, ids, stop=()):
    """The parts that come out, and the detokenizer."""
    detokenizer = Detokenizer(tokenizer, stop)
    parts = [detokenizer.feed(token) for token in ids]
    return [*parts, detokenizer.finish()], detokenizer


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
@settings(deadline=None)
def test_characters_come_out_whole(text):
    parts, _ = stream(BYTES, ids_of(text))
    assert "".join(parts) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in part for part in parts)


def test_each_character_comes_out_when_its_last_byte_does():
    parts, _ = stream(BYTES, ids_of("aé漢👩z"))
    assert parts == ["a", "", "é", "", "", "漢", "", "", "", "👩", "z", ""]


@given(st.lists(st.integers(0, 255), max_size=60))
@settings(deadline=None)
def test_any_bytes_come_out_as_decoded_at_once(ids):
    parts, _ = stream(BYTES, ids)
    assert "".join(parts) == BYTES.decode(ids)


@pytest.mark.parametrize("ids", [ids_of("x") + ids_of("漢")[:2], ids_of("👩")[:3]])
def test_a_reply_cut_inside_a_character_shows_it(ids):
    parts, _ = stream(BYTES, ids)
    assert "".join(parts) == BYTES.decode(ids)
    assert parts[-1] == "\ufffd"


def test_what_never_becomes_text_does_not_wait_for_ever():
    broken = ids_of("é")[1]
    parts, _ = stream(BYTES, [broken] * 1_000)
    assert "".join(parts) == BYTES.decode([broken] * 1_000)
    assert sum(map(bool, parts)) > 10


def test_a_token_costs_the_same_late_in_a_reply():
    class Measured:
        longest = 0

        def decode(self, ids, **options):
            self.longest = max(self.longest, len(ids))
            return BYTES.decode(ids, **options)

    tokenizer = Measured()
    stream(tokenizer, ids_of("a漢" * 200))
    assert tokenizer.longest <= 6  # the character before and this one


def test_special_tokens_are_left_out():
    parts, _ = stream(BYTES, [*ids_of("a"), BYTES.eos_token_id, *ids_of("b")])
    assert "".join(parts) == "ab"


def test_no_tokens():
    assert stream(BYTES, [])[0] == [""]


@given(st.lists(st.integers(0, len(PIECES) - 1), max_size=30))
@settings(deadline=None)
def test_spaces_between_pieces_stay(ids):
    words = [token for token in ids if token > 256]
    parts, _ = stream(PIECES, words)
    assert "".join(parts) == PIECES.decode(words, skip_special_tokens=True)


def test_byte_fallback():
    e_acute = [PIECES.convert_tokens_to_ids(token) for token in ("<0xC3>", "<0xA9>")]
    it = PIECES.convert_tokens_to_ids("▁it")
    parts, _ = stream(PIECES, [it, *e_acute, it])
    assert parts == ["it", "", "é", " it", ""]


class TestStop:
    def test_ends_before_the_stop_string(self):
        parts, detokenizer = stream(BYTES, ids_of("one\n\ntwo"), ["\n\n"])
        assert "".join(parts) == "one"
        assert detokenizer.stopped == "\n\n"

    def test_holds_back_what_may_begin_one(self):
        detokenizer = Detokenizer(BYTES, ["END"])
        assert [detokenizer.feed(i) for i in ids_of("aENx")] == ["a", "", "", "ENx"]
        assert detokenizer.stopped is None

    def test_gives_out_a_beginning_at_the_end(self):
        parts, detokenizer = stream(BYTES, ids_of("aEN"), ["END"])
        assert parts[-1] == "EN"
        assert detokenizer.stopped is None

    def test_nothing_comes_behind(self):
        parts, detokenizer = stream(BYTES, ids_of("aENDbcd END"), ["END"])
        assert "".join(parts) == "a"
        assert detokenizer.finish() == ""

    def test_the_one_complete_first_wins(self):
        parts, detokenizer = stream(BYTES, ids_of("abcd"), ["abcd", "bc"])
        assert ("".join(parts), detokenizer.stopped) == ("a", "bc")

    def test_the_one_complete_first_wins_inside_a_token(self):
        ids = PIECES.convert_tokens_to_ids([".", "▁it"])
        parts, detokenizer = stream(PIECES, ids, [" it", "i"])
        assert ("".join(parts), detokenizer.stopped) == (". ", "i")

    def test_of_two_complete_together_the_longer_wins(self):
        parts, detokenizer = stream(BYTES, ids_of("xabc"), ["bc", "abc"])
        assert ("".join(parts), detokenizer.stopped) == ("x", "abc")

    def test_a_broken_character_may_be_one(self):
        parts, detokenizer = stream(BYTES, ids_of("a漢")[:-1], ["\ufffd"])
        assert ("".join(parts), detokenizer.stopped) == ("a", "\ufffd")

    def test_an_empty_one_is_refused(self):
        with pytest.raises(EngineError, match="stop string is empty"):
            Detokenizer(BYTES, ["x", ""])

    @given(
        st.text("abé", max_size=12), st.lists(st.text("abé", min_size=1, max_size=4), max_size=3)
    )
    @settings(deadline=None, max_examples=200)
    def test_the_text_is_cut_where_the_first_one_is_complete(self, text, stop):
        parts, detokenizer = stream(BYTES, ids_of(text), stop)
        ends = [end for end in range(len(text) + 1) if text[:end].endswith(tuple(stop))]
        if not ends:
            assert ("".join(parts), detokenizer.stopped) == (text, None)
            return
        matched = max((s for s in stop if text[: ends[0]].endswith(s)), key=len)
        assert "".join(parts) == text[: ends[0] - len(matched)]
        assert detokenizer.stopped == matched


@pytest.mark.parametrize(
    ("text", "size"), [("", 0), ("x<", 1), ("x<to", 3), ("x<tox", 0), ("<tool>", 0), ("<<t", 2)]
)
def test_overlap(text, size):
    assert overlap(text, "<tool>") == size


def test_the_embedded_tokenizer(embedded_gguf):
    tokenizer = load_tokenizer(embedded_gguf)
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    parts, _ = stream(tokenizer, [*ids, tokenizer.eos_token_id])
    assert "".join(parts) == TEXT
    assert not any("\ufffd" in part for part in parts)
