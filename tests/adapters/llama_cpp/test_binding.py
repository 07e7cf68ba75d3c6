"""Without llama-cpp-python: what is said, and templates, which need none of it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jinja2 import TemplateError

from leyline_adapters.llama_cpp.binding import LlamaModel, library
from leyline_adapters.llama_cpp.tokenizer import rendered
from leyline_agent.errors import AdapterError, EngineError


@pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is not None, reason="llama-cpp-python is installed here"
)
def test_the_library_is_missing() -> None:
    with pytest.raises(AdapterError, match=r"pip install 'leyline-agent\[llama-cpp\]' compiles it"):
        library()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cells": 0}, "cells is a whole number of at least 1, not 0"),
        ({"cells": "8k"}, "cells is .* not '8k'"),
        ({"threads": -1}, "threads is .* not -1"),
        ({"chunk": 0}, "chunk is .* not 0"),
        ({"sequences": True}, "sequences is .* not True"),
        ({"kv_type": "q3"}, "kv_type 'q3' is none of"),
    ],
)
def test_numbers_that_are_none(options: dict[str, Any], words: str) -> None:
    with pytest.raises(EngineError, match=words):
        LlamaModel(Path("model.gguf"), **options)


def test_the_adapter_is_imported_without_torch_or_the_library() -> None:
    script = "import sys; sys.modules.update(torch=None, transformers=None, llama_cpp=None)\n"
    script += "import leyline_adapters.llama_cpp.adapter"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_templates_have_what_they_rely_on() -> None:
    template = (
        "{%- for m in messages %}{% if m.role == 'tool' %}{% continue %}{% endif %}"
        "{{ bos_token }}{{ m.content }}{% endfor %}{{ tools | tojson(indent=1) }}"
        "{{ strftime_now('%Y') | length }}"
    )
    messages = [{"role": "user", "content": "<é>"}, {"role": "tool", "content": "no"}]
    text = rendered(template, messages=messages, tools=["<é>"], bos_token="^")
    assert text == '^<é>[\n "<é>"\n]4'


def test_templates_that_refuse_or_reach_out() -> None:
    with pytest.raises(TemplateError, match="roles must alternate"):
        rendered("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(TemplateError, match="unsafe"):
        rendered("{{ ''.__class__.__mro__ }}")
