"""A model's tokenizer and chat template out of its GGUF file, as `serving.render` takes one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from leyline_adapters.llama_cpp.binding import LlamaModel

__all__ = ["AddedToken", "LlamaTokenizer", "rendered"]

# ggml's attributes of a token.
_UNKNOWN, _CONTROL, _USER_DEFINED = 1 << 0, 1 << 3, 1 << 4
_LSTRIP, _RSTRIP, _SINGLE_WORD = 1 << 7, 1 << 8, 1 << 9


@dataclass(frozen=True)
class AddedToken:
    """A token at which a text is split before all else."""

    content: str
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


class LlamaTokenizer:
    """llama.cpp's tokenizer under the names that Hugging Face's have.

    Attributes:
        chat_template: the file's own; None where it has none.
        added_tokens_decoder: special tokens by id.
        end_ids: tokens that end a turn, by llama.cpp's reckoning.
    """

    def __init__(self, model: LlamaModel) -> None:
        lib, vocab = model.lib, model.vocab
        self._model = model
        self.chat_template = model.template
        self.added_tokens_decoder = self._added()
        self.end_ids = frozenset(
            token for token in self.added_tokens_decoder if lib.llama_vocab_is_eog(vocab, token)
        )
        self.bos_token = self._text(lib.llama_vocab_bos(vocab))
        eos = lib.llama_vocab_eos(vocab)
        self.eos_token_id: int | None = eos if eos >= 0 else None
        self.eos_token = self._text(eos)
        self._piece = lru_cache(maxsize=1 << 16)(self._find_piece)

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """The ids of a text. Nothing is added: what begins a prompt is the template's business."""
        return self._model.tokenize(text)

    def decode(
        self,
        ids: Sequence[int],
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool = False,
    ) -> str:
        """The text of ids; U+FFFD where they begin or end inside a character."""
        special = not skip_special_tokens
        return b"".join(self._piece(token, special) for token in ids).decode(errors="replace")

    def get_vocab(self) -> dict[str, int]:
        """Every token's text and id."""
        return {self.decode([token]): token for token in range(self._model.vocab_size)}

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template: str,
        tokenize: bool = False,
        add_generation_prompt: bool = True,
    ) -> str:
        """The messages as text. Raises jinja2's errors where the template refuses them."""
        return rendered(
            chat_template,
            messages=messages,
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            bos_token=self.bos_token,
            eos_token=self.eos_token,
        )

    def _added(self) -> dict[int, AddedToken]:
        lib, vocab = self._model.lib, self._model.vocab
        found: dict[int, AddedToken] = {}
        for token in range(self._model.vocab_size):
            attributes = lib.llama_vocab_get_attr(vocab, token)
            if attributes & (_UNKNOWN | _CONTROL | _USER_DEFINED):
                found[token] = AddedToken(
                    self._text(token),
                    lstrip=bool(attributes & _LSTRIP),
                    rstrip=bool(attributes & _RSTRIP),
                    single_word=bool(attributes & _SINGLE_WORD),
                )
        return found

    def _text(self, token: int) -> str:
        if token < 0:
            return ""
        found: bytes = self._model.lib.llama_vocab_get_text(self._model.vocab, token)
        return found.decode(errors="replace")

    def _find_piece(self, token: int, special: bool) -> bytes:
        return self._model.piece(token, special=special)


def rendered(template: str, **context: Any) -> str:
    """A chat template's text, with the names and filters that such templates rely on.

    Raises:
        jinja2.TemplateError: it is none, or refuses what it is given.
    """
    text: str = _compiled(template).render(**context)
    return text


@lru_cache(maxsize=16)
def _compiled(template: str) -> Any:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda pattern: datetime.now().strftime(pattern)
    return environment.from_string(template)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is: jinja2's own filter escapes it for HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)
