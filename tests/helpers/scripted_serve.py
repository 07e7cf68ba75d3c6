"""`leyline serve`'s server over the tiny model, whose every reply is written beforehand.

    python tests/helpers/scripted_serve.py FOLDER '["first reply", "second reply"]'

The prompt is computed, cached and spliced as ever; only which token comes next is settled. Prints
its address, on one line, when it listens.
"""

from __future__ import annotations

import importlib.util
import json
import socket
import sys
from pathlib import Path
from typing import Any

from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.engine import Engine, EngineConfig
from leyline_agent.serving.generate import Generation
from leyline_agent.serving.models.load import load_model
from leyline_agent.serving.server import create_app
from leyline_agent.serving.server.run import run

CONFTEST = Path(__file__).resolve().parent.parent / "conftest.py"


def tiny(folder: Path) -> Path:
    """The suite's tiny model, in a folder."""
    spec = importlib.util.spec_from_file_location("suite", CONFTEST)
    assert spec is not None
    assert spec.loader is not None
    suite: Any = importlib.util.module_from_spec(spec)
    sys.modules["suite"] = suite
    spec.loader.exec_module(suite)
    tokenizer = suite._tokenizer()
    tokenizer.save_pretrained(folder)
    suite._network(len(tokenizer)).save_pretrained(folder)
    return folder


def write_beforehand(replies: list[str]) -> None:
    """Let each generation say the next reply; the last one for ever."""

    def sample(self: Any) -> int:
        if not hasattr(self, "written"):
            text = replies.pop(0) if len(replies) > 1 else replies[0]
            ids = self.chat.tokenizer.encode(text, add_special_tokens=False)
            self.written = iter([*ids, min(self.chat.stop_ids)])
        assert self.run.logits is not None
        return int(next(self.written))

    Generation._sample = sample  # type: ignore[method-assign]


def main() -> None:
    """Serve until the process is told to stop."""
    folder, replies = Path(sys.argv[1]), json.loads(sys.argv[2])
    write_beforehand(replies)
    model = load_model(tiny(folder), dtype="float32")
    service = ChatService(
        Engine.of(model, EngineConfig(kv_bytes=32 << 20)), "scripted", model.tokenizer
    )
    with socket.create_server(("127.0.0.1", 0)) as bound:
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        run(create_app(service), bound, lambda: print(url, flush=True))


if __name__ == "__main__":
    main()
