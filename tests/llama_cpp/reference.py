"""What the bundled engine says, for comparison: runs in the environment that has torch.

    python tests/llama_cpp/reference.py CASES.json OUT.npz

A case has `ids`, `directives` and `new`; a text has its ids by the model's own tokenizer.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from leyline_agent.directive import Directive, Mode, apply
from leyline_agent.serving.engine import Engine, EngineConfig, Prompt
from leyline_agent.serving.turns import as_items


def main() -> None:
    """Answer every case."""
    asked = json.loads(Path(sys.argv[1]).read_text())
    engine = Engine.load(Path(asked["model"]), EngineConfig(dtype="float32"))
    told = {}
    for name, case in asked["cases"].items():
        base = engine.start(Prompt(case["ids"])).finish()
        directives = [Directive(a, b, tuple(new), Mode(m)) for a, b, new, m in case["directives"]]
        tokens = [*apply(case["ids"], directives), *case["new"]]
        items = as_items(directives)
        run = engine.start(Prompt(tokens, "", base, items, len(case["new"]), version=2))
        told[name] = run.logits.numpy()
    assert engine.model is not None
    for number, text in enumerate(asked["texts"]):
        ids = engine.model.tokenizer.encode(text, add_special_tokens=False)
        told[f"text-{number}"] = np.asarray(ids)
    np.savez(sys.argv[2], **told)


if __name__ == "__main__":
    main()
