"""Prefix trees: canonical KV, found again by its tokens.

    root ── [system prompt] ─┬─ [task A, turn 1] ── [turn 2]
                             └─ [task B, turn 1]

A node owns one reference on each of its slots; a match hands out slots, not references. A tree
knows nothing of requests or sessions, and serves one tenant: KV carries the context it was computed
in, so it is never looked up across tenants.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Any, NamedTuple

import numpy as np

from leyline_agent.errors import EngineError
from leyline_agent.serving.kv.slots import Extent, SlotPool, join_extents, slice_extents

__all__ = ["Match", "Node", "PrefixForest", "PrefixTree"]

Tokens = np.ndarray[tuple[int], np.dtype[np.int32]]
AnyTokens = Sequence[int] | np.ndarray[Any, Any]


class Match(NamedTuple):
    """The longest cached prefix: how many tokens, and the slots that hold them."""

    length: int
    extents: tuple[Extent, ...]


@dataclass(slots=True, eq=False)
class Node:
    """A run of tokens and its slots, behind the tokens of its parents.

    Attributes:
        tokens: int32 [length]; empty only in a root.
        extents: the slots, `length` of them.
        parent: None in a root.
        children: by their first token.
        last_used: the clock when a match or an insertion last came by.
        owner: who had it computed, as named at its insertion.
    """

    tokens: Tokens
    extents: tuple[Extent, ...]
    parent: Node | None
    children: dict[int, Node] = field(default_factory=dict)
    last_used: int = 0
    owner: str = ""


class PrefixTree:
    """The canonical KV of one tenant, by token prefix. Iterates over nodes, parents first.

    Args:
        pool: where the slots live.
        clock: what counts uses; shared by trees that are evicted together.
    """

    def __init__(self, pool: SlotPool, clock: Iterator[int] | None = None) -> None:
        self._pool = pool
        self._clock = itertools.count(1) if clock is None else clock
        self._root = Node(np.empty(0, np.int32), (), None)

    def __iter__(self) -> Iterator[Node]:
        return _below(self._root)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @property
    def num_tokens(self) -> int:
        """How many tokens the tree holds."""
        return sum(len(node.tokens) for node in self)

    def match(self, tokens: AnyTokens) -> Match:
        """The longest prefix of `tokens` that is cached. Takes no references.

        The slots stay valid until the next `insert`, `evict` or `remove`: whoever uses them
        retains them first.
        """
        path, length = self._walk(tokens)
        extents = (extent for node in path for extent in node.extents)
        return Match(length, tuple(join_extents(slice_extents(extents, 0, length))))

    def insert(self, tokens: AnyTokens, extents: Sequence[Extent], owner: str = "") -> int:
        """Cache `tokens`, whose canonical KV is in `extents`; the tree retains what is new to it.

        What is new belongs to `owner`.

        Returns:
            How many leading tokens were cached before, in the tree's own slots.

        Raises:
            EngineError: `extents` are not as many slots as there are tokens, or not all in use.
        """
        num_slots = sum(end - start for start, end in extents)
        if num_slots != len(tokens):
            raise EngineError(f"cannot cache {len(tokens)} tokens in {num_slots} slots")
        path, length = self._walk(tokens)
        if length < len(tokens):
            parent = self._end_of(path, length)
            new = tuple(join_extents(slice_extents(extents, length, num_slots)))
            self._pool.retain(new)
            now = next(self._clock)
            leaf = Node(_own(tokens[length:]), new, parent, last_used=now, owner=owner)
            parent.children[int(leaf.tokens[0])] = leaf
        return length

    def owned(self, owner: str) -> list[Extent]:
        """The slots of everything `owner` had computed."""
        return [extent for node in self if node.owner == owner for extent in node.extents]

    def evict(self, n: int) -> int:
        """Free at least `n` slots, if it can, from the least recently used leaves.

        Slots that somebody else holds too are not freed and do not count.

        Returns:
            How many slots became free.
        """
        return _evict(self._pool, [self], n)

    def remove(self, extents: Iterable[Extent]) -> int:
        """Drop every token in one of these slots and everything behind it.

        Returns:
            How many tokens were dropped.
        """
        marked = np.zeros(self._pool.num_slots, np.bool_)
        for start, end in extents:
            marked[start:end] = True
        return sum(_cut(self._pool, node, keep) for node, keep in self._first_marked(marked))

    def clear(self) -> None:
        """Drop everything."""
        for node in list(self._root.children.values()):
            _cut(self._pool, node, 0)

    def _walk(self, tokens: AnyTokens) -> tuple[list[Node], int]:
        """The nodes along `tokens` and how many tokens match; the last node may match in part.

        Tokens become arrays node by node: behind the match none are looked at.
        """
        path: list[Node] = []
        node, at, now = self._root, 0, next(self._clock)
        while at < len(tokens):
            child = node.children.get(int(tokens[at]))
            if child is None:
                break
            size = _common_prefix(child.tokens, _as_array(tokens[at : at + len(child.tokens)]))
            child.last_used = now
            path.append(child)
            at += size
            if size < len(child.tokens):
                break
            node = child
        return path, at

    def _end_of(self, path: Sequence[Node], length: int) -> Node:
        """The node that ends after `length` tokens of the path; the last one is split for it."""
        if not path:
            return self._root
        last = path[-1]
        at = len(last.tokens) - (sum(len(node.tokens) for node in path) - length)
        return last if at == len(last.tokens) else _split(last, at)

    def _first_marked(self, marked: np.ndarray[Any, np.dtype[np.bool_]]) -> list[tuple[Node, int]]:
        """The topmost nodes with a marked slot, and how many tokens stand before it."""
        found: list[tuple[Node, int]] = []
        waiting = list(self._root.children.values())
        while waiting:
            node = waiting.pop()
            hits = np.concatenate([marked[start:end] for start, end in node.extents])
            if hits.any():
                found.append((node, int(hits.argmax())))
            else:
                waiting.extend(node.children.values())
        return found


class PrefixForest:
    """One prefix tree a tenant, in one pool, evicted together. Never looks across tenants."""

    def __init__(self, pool: SlotPool) -> None:
        self._pool = pool
        self._clock = itertools.count(1)
        self._trees: dict[str, PrefixTree] = {}

    def tree(self, tenant: str = "") -> PrefixTree:
        """The tenant's tree."""
        if tenant not in self._trees:
            self._trees[tenant] = PrefixTree(self._pool, self._clock)
        return self._trees[tenant]

    def drop(self, tenant: str) -> None:
        """Forget a tenant and all its tree holds. Harmless when it has none."""
        if tree := self._trees.pop(tenant, None):
            tree.clear()

    @property
    def num_tokens(self) -> int:
        """How many tokens the trees hold."""
        return sum(tree.num_tokens for tree in self._trees.values())

    def evict(self, n: int) -> int:
        """`PrefixTree.evict` over the leaves of all tenants."""
        return _evict(self._pool, self._trees.values(), n)


def _as_array(tokens: AnyTokens) -> Tokens:
    return np.asarray(tokens, np.int32)


def _own(tokens: AnyTokens) -> Tokens:
    """A copy, which keeps no larger array alive."""
    return np.array(tokens, np.int32)


def _common_prefix(left: Tokens, right: Tokens) -> int:
    size = min(len(left), len(right))
    differs = left[:size] != right[:size]
    first = int(differs.argmax())
    return first if differs[first] else size


def _below(root: Node) -> Iterator[Node]:
    """Every node below `root`, parents first."""
    waiting = list(root.children.values())
    while waiting:
        node = waiting.pop()
        waiting.extend(node.children.values())
        yield node


def _split(node: Node, at: int) -> Node:
    """Make the node's first `at` tokens a node of their own, its new parent."""
    assert node.parent is not None
    upper = Node(
        node.tokens[:at],
        tuple(slice_extents(node.extents, 0, at)),
        node.parent,
        {int(node.tokens[at]): node},
        node.last_used,
        node.owner,
    )
    node.parent.children[int(upper.tokens[0])] = upper
    node.extents = tuple(slice_extents(node.extents, at, len(node.tokens)))
    node.tokens = node.tokens[at:]
    node.parent = upper
    return upper


def _cut(pool: SlotPool, node: Node, keep: int) -> int:
    """Drop what is behind the node's first `keep` tokens; the number of tokens dropped."""
    dropped = len(node.tokens) - keep
    pool.release(slice_extents(node.extents, keep, len(node.tokens)))
    for child in _below(node):
        dropped += len(child.tokens)
        pool.release(child.extents)
    node.children = {}
    if keep:
        node.extents = tuple(slice_extents(node.extents, 0, keep))
        node.tokens = node.tokens[:keep]
    elif node.parent is not None:
        del node.parent.children[int(node.tokens[0])]
    return dropped


def _evict(pool: SlotPool, trees: Iterable[PrefixTree], n: int) -> int:
    """Free `n` slots from the ends of the least recently used leaves; how many became free.

    A leaf that others hold entirely frees nothing. It goes last, and only where a parent's slots
    are held by the tree alone: a splice leaves such parents, when its session keeps the suffix.
    """
    order = itertools.count()
    leaves = [(leaf.last_used, next(order), leaf) for t in trees for leaf in t if not leaf.children]
    heapify(leaves)
    shared: deque[Node] = deque()
    goal = pool.num_free + n
    while pool.num_free < goal and (leaves or shared):
        if leaves:
            leaf = heappop(leaves)[-1]
            keep = _cut_point(pool, leaf, goal - pool.num_free)
            if keep:
                shared.append(leaf)
        else:
            leaf, keep = shared.popleft(), 0
            if not _hides_free(pool, leaf):
                continue
        _cut(pool, leaf, keep)
        parent = leaf.parent
        if not keep and parent is not None and parent.parent is not None and not parent.children:
            heappush(leaves, (parent.last_used, next(order), parent))
    return pool.num_free - goal + n


def _cut_point(pool: SlotPool, leaf: Node, n: int) -> int:
    """How many of the leaf's tokens to keep to free up to `n` slots; all when none can be."""
    point = base = len(leaf.tokens)
    for extent in reversed(leaf.extents):
        base -= extent.end - extent.start
        for run in reversed(pool.exclusive([extent])):
            size = min(n, run.end - run.start)
            point = base + (run.end - size - extent.start)
            n -= size
            if n == 0:
                return point
    return point


def _hides_free(pool: SlotPool, leaf: Node) -> bool:
    """Whether a node above the leaf has slots that only the tree holds."""
    above = leaf.parent
    while above is not None:
        if pool.exclusive(above.extents):
            return True
        above = above.parent
    return False
