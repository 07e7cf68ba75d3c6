"""Templates that render each message by itself: a turn then costs what is new in it.

Most chat templates of the ChatML kind put a header and a footer around each message and look at
nothing else. Where a template's syntax tree proves that, the ids of every message are remembered;
where it does not, the whole conversation is rendered anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from jinja2 import Environment, TemplateError, nodes

from leyline_agent.message import Message

__all__ = ["LocalChat", "is_local"]

_CONSTANTS = {"add_generation_prompt", "bos_token", "eos_token", "raise_exception"}
_ALLOWED = (nodes.Output, nodes.If, nodes.Expr, nodes.Keyword, nodes.Operand)
_MARKER = "\ue000reply\ue001"
_CACHED_MESSAGES = 16384

Plain = tuple[str, str]
"""A plain message: its role and its text."""


def is_local(template: str) -> bool:
    """Whether a template's text is one part a message, in order, each made of that message alone.

    A part may also depend on the first message and on being first. False where it cannot be told.
    """
    try:
        tree = Environment(trim_blocks=True, lstrip_blocks=True).parse(template)
    except TemplateError:
        return False
    loops = list(tree.find_all(nodes.For))
    if len(loops) != 1 or loops[0] not in tree.body:
        return False
    [loop] = loops
    whole = isinstance(loop.iter, nodes.Name) and loop.iter.name == "messages"
    if not whole or loop.test or loop.else_ or loop.recursive:
        return False
    if not isinstance(loop.target, nodes.Name):
        return False
    message = loop.target.name
    around = (node for node in tree.body if node is not loop)
    return _is_pure(around, set()) and _is_pure(loop.body, {message, "loop"})


def _is_pure(body: Iterable[nodes.Node], own: set[str]) -> bool:
    """Whether a part of a template reads constants, its `own` names and the first message alone."""
    return all(_is_pure_node(node, own) for node in body)


def _is_pure_node(node: nodes.Node, own: set[str]) -> bool:
    if not isinstance(node, _ALLOWED) or (isinstance(node, nodes.Filter) and node.name == "random"):
        return False
    if isinstance(node, nodes.Getitem) and _name(node.node) == "messages":
        return isinstance(node.arg, nodes.Const) and node.arg.value == 0
    if isinstance(node, nodes.Getattr) and _name(node.node) == "loop":
        return "loop" in own and node.attr == "first"
    if isinstance(node, nodes.Name):
        return node.name != "loop" and node.name in _CONSTANTS | own
    return _is_pure(node.iter_child_nodes(), own)


def _name(node: nodes.Node) -> str:
    return node.name if isinstance(node, nodes.Name) else ""


class LocalChat:
    """Renders plain messages with a template that `is_local`.

    Args:
        apply: the template: messages, and whether the generation prompt follows, to text.
        encode: text to ids.
        starts_split: whether a text begins with a token at which the tokenizer splits first, so
            that it can be encoded apart from what is before it.
    """

    def __init__(
        self,
        apply: Callable[[Sequence[Message], bool], str],
        encode: Callable[[str], list[int]],
        starts_split: Callable[[str], bool],
    ) -> None:
        self._apply = apply
        self._encode = encode
        self._starts_split = starts_split
        self._first = lru_cache(maxsize=64)(self._find_first)
        self._next = lru_cache(maxsize=_CACHED_MESSAGES)(self._find_next)
        self._around = lru_cache(maxsize=64)(self._find_around)

    def render(
        self, messages: Sequence[Message], replies: Sequence[Sequence[int] | None]
    ) -> list[int] | None:
        """The ids, with the generation prompt behind; None where they must be found another way.

        Args:
            messages: `role` and text `content` alone.
            replies: for each message, the ids it was sampled as, or None.
        """
        first = _plain(messages[0])
        opening = None if replies[0] is not None else self._first(first)
        if opening is None:
            return None
        ids = list(opening[0])
        for message, reply in zip(messages[1:], replies[1:], strict=True):
            if reply is None:
                part = self._next(first, _plain(message))
                if part is None:
                    return None
                ids += part
                continue
            around = self._around(first, message["role"])
            if around is None:
                return None
            ids += around[0]
            ids += reply
            ids += around[1]
        ids += opening[1]
        return ids

    def _find_first(self, first: Plain) -> tuple[list[int], list[int]] | None:
        """The ids of the first message with what is around it, and of the generation prompt."""
        text, whole = (self._apply([_message(first)], more) for more in (False, True))
        prompt = whole[len(text) :]
        if not whole.startswith(text) or not self._splits(prompt):
            return None
        return self._encode(text), self._encode(prompt)

    def _find_next(self, first: Plain, plain: Plain) -> list[int] | None:
        """The ids of a later message."""
        part = self._part(first, plain)
        return None if part is None else self._encode(part)

    def _find_around(self, first: Plain, role: str) -> tuple[list[int], list[int]] | None:
        """The ids before and behind a later message's content."""
        part = self._part(first, (role, _MARKER))
        head, found, tail = (part or "").partition(_MARKER)
        return (self._encode(head), self._encode(tail)) if found else None

    def _part(self, first: Plain, plain: Plain) -> str | None:
        """The text of a later message, where it can be encoded apart from what is before it."""
        before = self._apply([_message(first)], False)
        text = self._apply([_message(first), _message(plain)], False)
        part = text[len(before) :]
        return part if text.startswith(before) and self._splits(part) else None

    def _splits(self, text: str) -> bool:
        return not text or self._starts_split(text)


def _plain(message: Message) -> Plain:
    return message["role"], message["content"]


def _message(plain: Plain) -> Message:
    return {"role": plain[0], "content": plain[1]}
