"""Engines for a replay: a fresh one for every run and arm, so that no arm profits from another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from leyline_agent.errors import EngineError
from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.engine import Engine, EngineConfig
from leyline_agent.serving.kv.store import bytes_per_token
from leyline_agent.serving.models.embedded import resolve
from leyline_agent.serving.models.load import LoadedModel, load_model, load_tokenizer
from leyline_agent.serving.wire import ChatRequest

__all__ = ["Engines"]

# A working copy takes one; versions that share little (FORGET's) take the others.
CONTEXTS = 5
FLOOR_CHUNK = 256
WARM_WORDS = 200
NO_MODEL = "no model runs in this replay; it only counts tokens"


class Engines:
    """Makes chat services over fresh engines that share one model.

    Args:
        name: what the user asked for; for reports.
        tokenizer: the model's.
        model: the model; None to count tokens only.
    """

    def __init__(self, name: str, tokenizer: Any, model: LoadedModel | None = None) -> None:
        self.name = name
        self.model = model
        self._tokenizer = tokenizer
        self._counting = ChatService(Engine.counting(1), name, tokenizer)

    @classmethod
    def load(cls, name: str, *, tokens_only: bool) -> Engines:
        """Load a model, or its tokenizer alone, by name, folder, hub name or GGUF file.

        Raises:
            EngineError: the model cannot be fetched or served.
        """
        source = resolve(name)
        if tokens_only:
            return cls(name, load_tokenizer(source))
        model = load_model(source)
        return cls(name, model.tokenizer, model)

    def fresh(self) -> ChatService:
        """A service over an empty engine."""
        return self.counting() if self.model is None else self._serve(self.model, EngineConfig())

    def served(self) -> ChatService:
        """A service over an empty engine as `leyline serve` has it, for many conversations.

        Raises:
            EngineError: no model runs here.
        """
        if self.model is None:
            raise EngineError(NO_MODEL)
        return ChatService(Engine.of(self.model, EngineConfig()), self.name, self._tokenizer)

    def rechunked(self) -> ChatService:
        """The same in another chunking: its results differ by rounding, the noise floor.

        Raises:
            EngineError: no model runs here.
        """
        if self.model is None:
            raise EngineError(NO_MODEL)
        return self._serve(self.model, EngineConfig(chunk=FLOOR_CHUNK))

    def counting(self) -> ChatService:
        """A service that does the accounting without the model, at any length.

        What rendering remembers is shared: it changes no figure.
        """
        chat = self._counting.chat
        return ChatService(Engine.counting(), self.name, self._tokenizer, chat=chat)

    def warm_up(self) -> None:
        """Run the model once, so that no arm pays for what the first pass sets up."""
        if self.model is not None:
            messages = [{"role": "user", "content": "word " * WARM_WORDS}]
            reply = {"role": "assistant", "content": "A short reply."}
            self.fresh().recorded(ChatRequest(messages=messages), reply)

    @property
    def max_len(self) -> int | None:
        """The model's context length; None when only counting."""
        return None if self.model is None else self.model.max_len

    @property
    def dtype(self) -> str:
        """The numbers computed with, "" when only counting."""
        return "" if self.model is None else str(self.model.dtype).removeprefix("torch.")

    def _serve(self, model: LoadedModel, config: EngineConfig) -> ChatService:
        # Memory is reserved, and used only as slots fill.
        room = CONTEXTS * model.max_len * bytes_per_token(model.facts.layers, model.dtype)
        engine = Engine.of(model, replace(config, kv_bytes=room))
        return ChatService(engine, self.name, self._tokenizer)
