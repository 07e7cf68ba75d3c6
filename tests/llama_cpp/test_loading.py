"""Files that are no models, and contexts that cannot splice."""

from __future__ import annotations

from pathlib import Path

import pytest

from leyline_adapters.llama_cpp.adapter import LlamaCppAdapter
from leyline_adapters.llama_cpp.host import HostConfig
from leyline_agent.adapter import Commit, WireEdit, as_adapter
from leyline_agent.directive import Mode
from leyline_agent.errors import EngineError, UnsupportedModel
from leyline_agent.receipt import Reason


def test_by_name() -> None:
    adapter = as_adapter("llama_cpp")
    assert adapter.name == "llama_cpp"


def test_what_is_no_model(tmp_path: Path, embedded_gguf: Path) -> None:
    text = tmp_path / "model.gguf"
    text.write_text("not weights")
    with pytest.raises(UnsupportedModel, match=r"model.gguf is no GGUF file"):
        LlamaCppAdapter.load(text)
    text.write_bytes(embedded_gguf.read_bytes()[:5_000_000])
    with pytest.raises(UnsupportedModel, match=r"llama.cpp cannot load .*model.gguf"):
        LlamaCppAdapter.load(text)
    with pytest.raises(UnsupportedModel, match="is no file; llama.cpp reads GGUF files"):
        LlamaCppAdapter.load(tmp_path)
    with pytest.raises(UnsupportedModel, match="is on the hub"):
        LlamaCppAdapter.load("owner/name")
    with pytest.raises(EngineError, match="kv_type 'q3' is none of"):
        LlamaCppAdapter.load(kv_type="q3")


def test_a_closed_adapter_refuses_and_does_not_crash() -> None:
    asked = {"messages": [{"role": "user", "content": "Hello."}], "max_tokens": 1}
    with LlamaCppAdapter.load(cells=512, threads=1) as adapter:
        assert adapter.complete(asked)["choices"]
        LlamaCppAdapter(adapter.service).close()  # not its own
        assert adapter.complete(asked)["choices"]
    adapter.close()
    with pytest.raises(EngineError, match="is closed; load it again"):
        adapter.complete(asked)
    with pytest.raises(EngineError, match="is closed; load it again"):
        adapter.complete({**asked, "messages": [{"role": "user", "content": "Something else."}]})


def test_quantised_keys_are_forgotten_instead_of_moved() -> None:
    config = HostConfig(tapes=2)
    adapter = LlamaCppAdapter.load(config=config, cells=512, threads=1, kv_type="q8_0")
    messages = [{"role": "user", "content": "Tell me a thing. " * 9} for _ in range(2)]
    asked = {"messages": messages, "max_tokens": 1}
    adapter.complete(adapter.prepare(asked, Commit(session="run")))
    asked["messages"] = [{"role": "user", "content": "[removed]"}, messages[1]]
    edit = WireEdit(messages=(0, 1), count=1, mode=Mode.AMORTIZE)
    sent = Commit(session="run", base_version=1, version=2, base_len=2, edits=(edit,))
    told = adapter.receipt(adapter.complete(adapter.prepare(asked, sent)))
    assert told is not None
    [edited] = told.edits
    assert (edited.mode_used, edited.reason) == (Mode.FORGET, Reason.ENGINE_CANNOT_SPLICE)
    assert "q8_0" in told.detail
