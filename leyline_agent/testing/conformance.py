"""What every adapter that makes calls promises, as tests that any runner of pytest's kind collects.

    class TestMine(AdapterConformance):
        def open(self, tenant: str = "") -> MyAdapter:
            return MyAdapter("http://127.0.0.1:8000", api_key=tenant)

Each test opens its own adapters and sessions. What an engine declares it cannot do is not asked of
it; what it declares must be true, and what it does otherwise than asked must have a reason.
"""

from __future__ import annotations

import asyncio
import itertools
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, aclosing, closing, nullcontext
from typing import Any, ClassVar
from unittest import SkipTest

from leyline_agent.adapter import CallingAdapter, Capabilities, missing_members
from leyline_agent.directive import Directive, Mode
from leyline_agent.edit import Edit
from leyline_agent.errors import AdapterError, EditError, LeylineError, StaleSession
from leyline_agent.receipt import Reason, Receipt
from leyline_agent.testing.talk import Talk, assembled, likeliest, long_text, text_of

__all__ = ["AdapterConformance"]

_numbers = itertools.count(1)


class AdapterConformance:
    """The contract of a `CallingAdapter` and of the engine behind it.

    Attributes:
        options: keyword arguments of every call: the model's name, what makes it deterministic.
        words: the length of a long message; a few of them must fit into the context.
        block: tokens that the engine may compute again though nothing before them changed, as
            engines do that cache whole blocks.
        tenants: whether `open` can open an adapter for another tenant.
        exact: whether a FORGET gives the very text of a prefill; rounding may forbid it. Then the
            log probabilities of a reply's first token are compared, which calls must give.
        rounding: by how much they may differ, in nats; another conversation differs by several.
        honours: whether declared modes are carried out as asked; False where the engine is one
            that strengthens them all, as with a model whose keys cannot be moved.
    """

    options: ClassVar[dict[str, Any]] = {"model": "any", "temperature": 0, "max_tokens": 6}
    words: ClassVar[int] = 120
    block: ClassVar[int] = 1
    tenants: ClassVar[bool] = True
    exact: ClassVar[bool] = True
    rounding: ClassVar[float] = 0.5
    honours: ClassVar[bool] = True

    @abstractmethod
    def open(self, tenant: str = "") -> Any:
        """An adapter for the engine; the same engine in every test, or a new one."""
        raise NotImplementedError(
            f"define open(self, tenant='') in {type(self).__name__}; it gives an adapter for your "
            "engine"
        )

    def opened(self, tenant: str = "") -> AbstractContextManager[CallingAdapter]:
        """`open`, closed behind the test where the adapter can be."""
        adapter = self.open(tenant)
        return closing(adapter) if hasattr(adapter, "close") else nullcontext(adapter)

    def talk(self, adapter: CallingAdapter, seed: int | None = None) -> Talk:
        """A conversation of its own, with two long messages behind the task."""
        number = next(_numbers) if seed is None else seed
        talk = Talk(adapter, self._asked)
        talk.say(f"You help with task {number}.", role="system")
        talk.say(f"Task {number}: tell what you see.")
        talk.say(long_text(self.words, number), role="assistant")
        talk.say(long_text(self.words, number + 1000))
        return talk

    @property
    def _asked(self) -> dict[str, Any]:
        more = {} if self.exact else {"logprobs": True, "top_logprobs": 5}
        return {**self.options, **more}

    def _assert_alike(self, answer: Mapping[str, Any], other: Mapping[str, Any]) -> None:
        """The same text; or the same predictions of its first token, up to rounding."""
        if self.exact:
            assert text_of(answer) == text_of(other)
            return
        mine, theirs = likeliest(answer), likeliest(other)
        both = mine.keys() & theirs.keys()
        assert len(both) >= 3, f"other tokens are likely: {sorted(mine)} and {sorted(theirs)}"
        apart = max(abs(mine[token] - theirs[token]) for token in both)
        assert apart <= self.rounding, f"{apart:.2f} nats apart: {mine} and {theirs}"

    # --- what it declares ------------------------------------------------------------------

    def test_it_is_an_adapter_that_makes_calls(self) -> None:
        """It has the methods of `CallingAdapter`, a name, and capabilities."""
        with self.opened() as adapter:
            missing = missing_members(adapter, calling=True)
            assert not missing, f"{type(adapter).__name__} has no {', '.join(missing)}"
            assert isinstance(adapter, CallingAdapter)
            assert adapter.name
            assert isinstance(adapter.capabilities, Capabilities)

    def test_what_it_cannot_it_refuses(self) -> None:
        """What is not among the capabilities raises `AdapterError`, and changes nothing."""
        with self.opened() as adapter:
            talk = self.talk(adapter)
            talk.turn()
            if not adapter.capabilities.edit_ahead:
                talk.session.edit(Edit(2, 3))
                _refused(AdapterError, talk.session.edit_ahead)
            if not adapter.capabilities.directives:
                directive = Directive(1, 2, (), Mode.AMORTIZE)
                _refused(AdapterError, lambda: adapter.apply(talk.session.id, 1, [directive]))
            assert talk.turn("Go on.").version == 2

    # --- turns and figures -----------------------------------------------------------------

    def test_a_turn_is_answered_and_counted(self) -> None:
        """A reply, `usage`, and a receipt of the commit; what a receipt counts is in `usage`."""
        with self.opened() as adapter:
            talk = self.talk(adapter)
            receipt = talk.turn()
            assert talk.answer["choices"][0]["message"]["role"] == "assistant"
            usage = talk.answer["usage"]
            assert (receipt.session, receipt.version) == (talk.session.id, 1)
            assert receipt.prompt == usage["prompt_tokens"] > self.words
            assert receipt.prompt == receipt.reused + receipt.compute
            details = usage.get("prompt_tokens_details") or {}
            assert (details.get("cached_tokens") or 0) == receipt.reused
            if adapter.capabilities.receipts:
                assert adapter.receipt(talk.answer) is not None
                assert receipt.reason is not Reason.NO_RECEIPT

    def test_what_is_appended_is_all_that_is_computed(self) -> None:
        """A turn without edits reuses the whole turn before it."""
        with self.opened() as adapter:
            talk = self.talk(adapter)
            first = talk.turn()
            second = talk.turn("And now?")
            assert second.prompt > first.prompt
            assert second.reused_exact >= first.prompt - self.block
            assert second.reused_spliced == second.recomputed == 0

    def test_a_stream_is_the_same_answer(self) -> None:
        """The same text and the same figures, in chunks; the last one has the receipt."""
        with self.opened() as adapter:
            whole, streamed = (self.talk(adapter, seed=next(_numbers)) for _ in range(2))
            one = whole.turn()
            other = streamed.turn(stream=True)
            assert other.version == one.version == 1
            assert other.prompt == other.reused + other.compute > self.words
            assert streamed.reply["role"] == "assistant"
            assert streamed.turn("And now?").reused_exact >= other.prompt - self.block

    def test_sync_and_async_say_the_same(self) -> None:
        """`acomplete` and `astream` are `complete` and `stream`."""
        with self.opened() as adapter:
            talk = self.talk(adapter)
            talk.turn()
            request = {**self._asked, "messages": talk.messages[:-1]}
            expected = adapter.complete(request)

            async def both() -> tuple[dict[str, Any], dict[str, Any]]:
                answer = await adapter.acomplete(request)
                async with aclosing(adapter.astream(request)) as chunks:  # type: ignore[type-var]
                    streamed = assembled([chunk async for chunk in chunks])
                return answer, streamed

            for answer in asyncio.run(both()):
                self._assert_alike(answer, expected)

    # --- modes -----------------------------------------------------------------------------

    def test_amortize(self) -> None:
        """Honoured, or strengthened with a reason."""
        self._check_mode(Mode.AMORTIZE)

    def test_repair(self) -> None:
        """Likewise."""
        self._check_mode(Mode.REPAIR)

    def test_forget(self) -> None:
        """Nothing behind the edit is reused, and the text is that of a prefill."""
        with self.opened() as adapter:
            talk = self.talk(adapter)
            talk.turn()
            talk.session.edit(Edit(4, 5))  # the sampled reply: its text may read as other tokens
            receipt = talk.turn("And now?", edit=talk.stub(2, Mode.FORGET))
            assert receipt.reused_spliced == receipt.recomputed == 0
            assert receipt.edits[0].mode_used is Mode.FORGET
            fresh = Talk(adapter, self._asked, messages=talk.view)
            fresh.turn()
            self._assert_alike(talk.answer, fresh.answer)

    def _check_mode(self, mode: Mode) -> None:
        with self.opened() as adapter:
            can = adapter.capabilities
            _, receipt = self._edited(adapter, mode)
            told = receipt.edits[0]
            assert told.mode_asked is mode
            assert told.mode_used.strength >= mode.strength
            assert (told.mode_used is mode) == (told.reason is Reason.ASKED)
            if mode not in can.modes:
                assert told.mode_used is not mode
            elif self.honours:
                assert told.mode_used is mode, f"{mode} is declared; it was {told.mode_used}"
            if told.mode_used is not Mode.FORGET:
                assert receipt.reused_spliced > 0
            if told.mode_used is Mode.AMORTIZE:
                assert receipt.recomputed == 0
            if told.mode_used is Mode.REPAIR and can.repair != "none":
                assert receipt.recomputed > 0

    def _edited(self, adapter: CallingAdapter, mode: Mode) -> tuple[Talk, Receipt]:
        """A conversation whose first long message was replaced; the receipt of that turn.

        Behind it is more than a repair computes again: it would be none if it saved nothing.
        """
        talk = self.talk(adapter)
        talk.say(long_text(2 * self.words, next(_numbers)), role="assistant")
        talk.say("Look again.")
        before = talk.turn()
        receipt = talk.turn("And now?", edit=talk.stub(2, mode))
        assert receipt.prompt < before.prompt
        if adapter.capabilities.receipts:
            assert receipt.previous > 0
            assert receipt.removed > receipt.inserted > 0
        return talk, receipt

    # --- isolation -------------------------------------------------------------------------

    def test_spliced_kv_serves_no_other_session(self) -> None:
        """The same messages in another session: reused is what no edit has touched."""
        with self.opened() as adapter:
            talk, receipt = self._edited(adapter, Mode.AMORTIZE)
            other = Talk(adapter, self._asked, messages=talk.view)
            found = other.turn()
            assert found.reused_spliced == 0
            if receipt.edits[0].mode_used is not Mode.FORGET:
                told = receipt.edits[0]  # the replacement, too, has seen nothing but the prefix
                assert found.reused_exact <= told.start + told.inserted + self.block

    def test_nothing_is_shared_between_tenants(self) -> None:
        """The very same messages of another tenant are computed from nothing."""
        if not self.tenants:
            raise SkipTest("this engine knows no tenants")
        seed = next(_numbers)
        with self.opened("one") as mine, self.opened("two") as theirs:
            first = self.talk(mine, seed).turn()
            assert self.talk(mine, seed).turn().reused >= first.prompt - self.block - 1
            assert self.talk(theirs, seed).turn().reused == 0

    def test_sessions_in_turn_do_not_meet(self) -> None:
        """Two conversations interleaved get what each gets alone."""
        with self.opened() as adapter:
            seeds = [next(_numbers) for _ in range(2)]
            alone = [self._whole_run(self.talk(adapter, seed)) for seed in seeds]
            talks = [self.talk(adapter, seed) for seed in seeds]
            for step in range(3):
                for talk, answers in zip(talks, alone, strict=True):
                    self._assert_alike(self._step(talk, step), answers[step])
                    # What was rounded may read on otherwise; what both go on from is the same.
                    talk.messages[-1] = answers[step]["choices"][0]["message"]
            assert [talk.session.version for talk in talks] == [3, 3]

    def _whole_run(self, talk: Talk) -> list[dict[str, Any]]:
        return [self._step(talk, step) for step in range(3)]

    def _step(self, talk: Talk, step: int) -> dict[str, Any]:
        edit = talk.stub(2, Mode.FORGET) if step == 2 else None
        talk.turn(f"Step {step}.", edit=edit)
        return talk.answer

    # --- versions, retries, cancellation ---------------------------------------------------

    def test_an_unknown_session_is_an_ordinary_prefill(self) -> None:
        """An engine that lost the session, or never had it, answers, and says why it computed."""
        self._check_commit(session="nobody-knows-it")

    def test_a_stale_base_is_refused_or_told(self) -> None:
        """A commit on a version that is not there: an error, or a prefill with a reason."""
        try:
            self._check_commit(base_version=7, version=9)
        except StaleSession:
            pass

    def _check_commit(self, **changed: Any) -> None:
        with self.opened() as adapter:
            talk = self.talk(adapter)
            talk.turn()
            turn = talk.begin("And now?", edit=talk.stub(2, Mode.AMORTIZE))
            commit = turn.commit.model_copy(update=changed)
            request = {**self.options, "messages": turn.request["messages"]}
            answer = adapter.complete(adapter.prepare(request, commit))
            receipt = adapter.receipt(answer)
            assert answer["usage"]["prompt_tokens"] > self.words
            assert (receipt is not None) >= adapter.capabilities.receipts
            if receipt is not None:
                assert receipt.reused_spliced == 0
                assert (receipt.reason is not Reason.ASKED) >= adapter.capabilities.receipts

    def test_a_retry_acts_once(self) -> None:
        """The same commit again: the same answer, and the next turn finds one version, not two."""
        with self.opened() as adapter:
            talk = self.talk(adapter)
            talk.turn()
            turn = talk.begin("And now?", edit=talk.stub(2, Mode.AMORTIZE))
            first = adapter.complete(turn.request)
            again = adapter.complete(turn.request)
            self._assert_alike(again, first)
            assert first["usage"]["prompt_tokens"] == again["usage"]["prompt_tokens"]
            receipt = talk.finish(turn, again)
            after = talk.turn("Go on.")
            assert after.removed == after.inserted == 0
            assert after.reused >= receipt.prompt - self.block

    def test_a_lost_answer_is_asked_for_again(self) -> None:
        """A call whose answer was lost is made again by the session, under the same number."""
        with self.opened() as adapter:
            talk = self.talk(adapter)
            talk.turn()
            edit = talk.stub(2, Mode.AMORTIZE)
            lost = talk.begin("And now?", edit=edit)
            adapter.complete(lost.request)
            lost.fail("connection reset")
            talk.messages.pop()
            receipt = talk.turn("And now?")
            assert receipt.version == lost.commit.version
            assert len(talk.session.edits) == 1

    def test_a_cancelled_stream_leaves_the_base(self) -> None:
        """A stream closed after its first chunk: the turn can be had again, whole."""
        with self.opened() as adapter:
            talk = self.talk(adapter)
            talk.turn()
            turn = talk.begin("And now?", edit=talk.stub(2, Mode.AMORTIZE))
            chunks = adapter.stream({**turn.request, "max_tokens": 200})
            next(chunks)
            getattr(chunks, "close", lambda: None)()
            turn.fail("cancelled")
            talk.messages.pop()
            receipt = talk.turn("And now?")
            assert receipt.prompt == receipt.reused + receipt.compute
            assert talk.turn("Go on.").reused >= receipt.prompt - self.block

    # --- edits ahead and directives --------------------------------------------------------

    def test_an_edit_ahead_is_found_done(self) -> None:
        """The next turn computes only what is new, though the edit was a FORGET."""
        with self.opened() as adapter:
            if not adapter.capabilities.edit_ahead:
                raise SkipTest("this engine cannot edit ahead")
            talk = self.talk(adapter)
            talk.turn()
            talk.session.edit(talk.stub(2, Mode.FORGET))
            ahead = talk.session.edit_ahead()
            assert ahead is not None
            assert ahead.edits[0].mode_used is Mode.FORGET
            receipt = talk.turn("And now?")
            assert receipt.compute <= receipt.prompt - ahead.prompt + self.block
            assert receipt.removed == 0

    def test_directives_are_applied_as_a_whole_or_not_at_all(self) -> None:
        """Spans of the original; a wrong one among them leaves everything as it was."""
        with self.opened() as adapter:
            if not adapter.capabilities.directives:
                raise SkipTest("this engine takes no directives")
            talk = self.talk(adapter)
            before = talk.turn()
            name = talk.session.id
            good = [Directive(20, 30, (), Mode.AMORTIZE), Directive(40, 44, (), Mode.AMORTIZE)]
            wrong: Sequence[Directive] = [good[0], Directive(25, 35, (), Mode.AMORTIZE)]
            _refused(EditError, lambda: adapter.apply(name, 1, list(wrong)))
            receipt = adapter.apply(name, 1, good)
            assert receipt.removed == 14
            assert receipt.previous >= before.prompt
            _refused(AdapterError, lambda: adapter.apply(name, 12345, good))

    def test_a_redaction_is_a_forget(self) -> None:
        """Whatever mode it asks for; what cannot be taken back is listed."""
        with self.opened() as adapter:
            talk = self.talk(adapter)
            talk.turn()
            edit = talk.stub(2, Mode.AMORTIZE, redact=True)
            receipt = talk.turn("And now?", edit=edit)
            assert receipt.edits[0].mode_used is Mode.FORGET
            assert receipt.reused_spliced == 0


def _refused(kind: type[LeylineError], call: Any) -> None:
    try:
        call()
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was to be raised")
