"""What is in the cells after an edit: bit for bit where it can be, else near what others say."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leyline_adapters.llama_cpp.binding import LlamaModel
from leyline_adapters.llama_cpp.held import Held
from leyline_adapters.llama_cpp.host import LlamaHost
from leyline_adapters.llama_cpp.model import Array, Part
from leyline_adapters.llama_cpp.sampling import log_softmax
from leyline_adapters.llama_cpp.tokenizer import LlamaTokenizer
from leyline_agent.directive import Directive, Mode, apply
from leyline_agent.serving.prompt import Prompt
from leyline_agent.serving.run import Run
from leyline_agent.serving.turns import as_items
from leyline_agent.testing.talk import long_text

SCRATCH = 14  # a sequence that no tape of a test has
LAYERS, WIDTH = 30, 192  # of the embedded model; keys and values of a token, in half precision


@pytest.fixture(scope="session")
def ids(model: LlamaModel) -> list[int]:
    """Some 360 tokens of text."""
    return model.tokenize("".join(long_text(120, seed) for seed in range(3)))


@pytest.fixture(scope="session")
def new(model: LlamaModel) -> list[int]:
    """What is appended behind the edits."""
    return model.tokenize("\nAnd now?")


def begun(host: LlamaHost, ids: Sequence[int]) -> Held:
    held = host.start(Prompt(list(ids))).finish()
    assert isinstance(held, Held)
    return held


def edited(host: LlamaHost, base: Held, new: Sequence[int], *directives: Directive) -> Run:
    tokens = [*apply(base.tokens, directives), *new]
    return host.start(Prompt(tokens, "", base, as_items(directives), len(new), version=2))


def tape_of(run: Run) -> int:
    assert isinstance(run.sequence, Held)
    return run.sequence.tape.seq


def fresh(model: LlamaModel, ids: Sequence[int]) -> Array:
    """The logits of a plain prefill in empty cells."""
    model.lib.llama_memory_clear(model.memory, False)
    [rows] = model.decode([Part(0, list(ids), 0, 1)])
    return rows[-1]


def kv(model: LlamaModel, seq: int, start: int, end: int) -> tuple[Any, Any]:
    """Keys and values of positions [start, end): [layers, tokens, width] each."""
    model.share(seq, SCRATCH, start, end)
    size = model.lib.llama_state_seq_get_size(model._context, SCRATCH)
    data = (ctypes.c_uint8 * size)()
    assert model.lib.llama_state_seq_get_data(model._context, data, size, SCRATCH) == size
    model.remove(SCRATCH, start, end)
    n = end - start
    half = LAYERS * n * WIDTH * 2  # bytes of all keys, or of all values
    # Each layer's keys have a type and a row size before them; its values follow likewise.
    raw = bytes(data)
    per_layer = 12 + n * WIDTH * 2
    values = raw[len(raw) - LAYERS * per_layer :]
    keys = raw[len(raw) - 2 * LAYERS * per_layer : len(raw) - LAYERS * per_layer]
    assert len(keys) == len(values) == half + 12 * LAYERS
    return _layers(keys, n), _layers(values, n)


def _layers(raw: bytes, n: int) -> Any:
    rows = np.frombuffer(raw, np.uint8).reshape(LAYERS, 12 + n * WIDTH * 2)[:, 12:]
    return rows.copy().view(np.float16).reshape(LAYERS, n, WIDTH)


def divergence(one: Array, other: Array) -> float:
    """KL(one, other)."""
    p, q = log_softmax(one), log_softmax(other)
    return float((np.exp(p) * (p - q)).sum())


def test_forget_is_a_fresh_prefill_to_the_bit(
    model: LlamaModel, host: LlamaHost, ids: list[int], new: list[int]
) -> None:
    run = edited(host, begun(host, ids), new, Directive(90, 180, (), Mode.FORGET))
    assert (run.receipt.reused_exact, run.receipt.prefilled) == (90, len(ids) - 180 + len(new))
    assert np.array_equal(run.logits, fresh(model, run.sequence.tokens))


def test_forget_behind_an_amortize_is_a_fresh_prefill_from_there(
    model: LlamaModel, host: LlamaHost, ids: list[int], new: list[int]
) -> None:
    held = edited(host, begun(host, ids), new, Directive(90, 180, (), Mode.AMORTIZE)).finish()
    assert isinstance(held, Held)
    at = held.first_that_saw("2.0")
    assert at == 90
    again = Directive(at, len(held), tuple(held.tokens[at:]), Mode.FORGET)
    run = edited(host, held, [], again)
    assert (run.receipt.reused_exact, run.receipt.reused_spliced) == (90, 0)
    assert np.array_equal(run.logits, fresh(model, run.sequence.tokens))


def test_amortize_is_llama_cpps_own_removal_and_shift(
    model: LlamaModel, host: LlamaHost, ids: list[int], new: list[int]
) -> None:
    cuts = [Directive(90, 140, (), Mode.AMORTIZE), Directive(200, 230, (), Mode.AMORTIZE)]
    run = edited(host, begun(host, ids), new, *cuts)
    assert run.receipt.reused_spliced == len(ids) - 80 - 90
    fresh(model, ids)
    lib, memory = model.lib, model.memory
    for start, end in ((200, 230), (90, 140)):
        length = lib.llama_memory_seq_pos_max(memory, 0) + 1
        lib.llama_memory_seq_rm(memory, 0, start, end)
        lib.llama_memory_seq_add(memory, 0, end, length, start - end)
    [rows] = model.decode([Part(0, new, len(ids) - 80, 1)])
    assert np.array_equal(run.logits, rows[-1])


def test_repair_computes_the_window_as_if_nothing_stood_behind_it(
    model: LlamaModel, host: LlamaHost, ids: list[int], new: list[int]
) -> None:
    base = begun(host, ids)
    _, values = kv(model, base.tape.seq, 196, len(ids))
    run = edited(host, base, new, Directive(90, 180, (5, 6, 7), Mode.REPAIR))
    assert run.receipt.recomputed == 16
    held = run.finish()
    assert isinstance(held, Held)
    window = kv(model, held.tape.seq, 90, 109)  # the replacement, and the window behind it
    moved = kv(model, held.tape.seq, 109, 109 + len(ids) - 196)
    fresh(model, held.tokens[:90])
    model.decode([Part(0, held.tokens[90:109], 90, 0)])  # in the same batches
    for found, expected in zip(window, kv(model, 0, 90, 109), strict=True):
        assert np.array_equal(found, expected)
    assert np.array_equal(moved[1], values)  # moved, not computed


def test_moved_keys_are_rotated_as_if_computed_there(
    model: LlamaModel, host: LlamaHost, ids: list[int], new: list[int]
) -> None:
    base = begun(host, ids)
    first, _ = kv(model, base.tape.seq, 0, 40)
    held = edited(host, base, new, Directive(0, 0, tuple(ids[:30]), Mode.AMORTIZE)).finish()
    assert isinstance(held, Held)
    moved, _ = kv(model, held.tape.seq, 30, 70)
    # The first layer's keys are made of token and position alone.
    fresh(model, held.tokens)
    expected, _ = kv(model, 0, 30, 70)
    close = np.abs(moved[0].astype(np.float32) - expected[0].astype(np.float32)).max()
    far = np.abs(first[0].astype(np.float32) - expected[0].astype(np.float32)).max()
    assert close < 0.02 * far


def test_spliced_cells_of_others_are_left_as_they_are(
    model: LlamaModel, host: LlamaHost, ids: list[int], new: list[int]
) -> None:
    mine, theirs = begun(host, ids), begun(host, ids)
    before = kv(model, theirs.tape.seq, 0, len(ids))
    run = edited(host, mine, new, Directive(90, 180, (), Mode.AMORTIZE))
    after = kv(model, theirs.tape.seq, 0, len(ids))
    for found, expected in zip(after, before, strict=True):
        assert np.array_equal(found, expected)
    copied = kv(model, tape_of(run), 90, 270)
    alone = LlamaHost(model, host.config)
    model.lib.llama_memory_clear(model.memory, False)
    run = edited(alone, begun(alone, ids), new, Directive(90, 180, (), Mode.AMORTIZE))
    for found, expected in zip(copied, kv(model, tape_of(run), 90, 270), strict=True):
        # A copy is as good as the cell; they come in the order of cells.
        rows, others = ({part[:, i].tobytes() for i in range(180)} for part in (found, expected))
        assert rows == others


@pytest.fixture(scope="session")
def bundled(
    embedded_gguf: Path,
    ids: list[int],
    new: list[int],
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    """What the bundled engine says of the same weights, unpacked to float32."""
    python = os.environ.get("LEYLINE_REFERENCE_PYTHON")
    if not python:
        pytest.skip("LEYLINE_REFERENCE_PYTHON names no Python that has torch")
    folder = tmp_path_factory.mktemp("reference")
    cases = {
        name: {"ids": ids, "directives": [[90, 180, [], mode]] if mode else [], "new": new}
        for name, mode in (("plain", None), ("amortize", "amortize"), ("forget", "forget"))
    }
    asked = {"model": str(embedded_gguf), "cases": cases, "texts": TEXTS}
    (folder / "cases.json").write_text(json.dumps(asked))
    script = Path(__file__).with_name("reference.py")
    command = [python, str(script), str(folder / "cases.json"), str(folder / "told.npz")]
    subprocess.run(command, check=True, timeout=300)
    return np.load(folder / "told.npz")


TEXTS = [
    "<|im_start|>user\nWhat is 12 × 34?<|im_end|>\n",
    "  def f(x):\n\treturn x**2  # naïve café 日本語 🙂\r\n\n\n",
    "Don't SHOUT 1234567 a_b-c <|im_end|><|im_start|>",
]


def test_the_bundled_engine_says_the_same_within_the_weights_rounding(
    host: LlamaHost, ids: list[int], new: list[int], bundled: Any
) -> None:
    base = begun(host, ids)
    plain = edited(host, base, new).logits
    noise = divergence(bundled["plain"], plain)
    for name in ("forget", "amortize"):
        held = begun(host, ids)
        run = edited(host, held, new, Directive(90, 180, (), Mode(name)))
        assert divergence(bundled[name], run.logits) < max(3 * noise, 0.03)


def test_llama_cpp_tokenizes_as_the_bundled_engine_does(
    tokenizer: LlamaTokenizer, bundled: Any
) -> None:
    for number, text in enumerate(TEXTS):
        assert tokenizer.encode(text) == bundled[f"text-{number}"].tolist()
        assert tokenizer.decode(tokenizer.encode(text)) == text
