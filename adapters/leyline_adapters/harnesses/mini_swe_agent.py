"""mini-swe-agent 2.x: a model around one of its models; every `query` is a turn.

In a configuration of its own command lines (`mini`, `mini-extra swebench`):

    model:
      model_class: leyline_adapters.harnesses.mini_swe_agent.LeylineModel
      model_name: openai/my-model
      leyline: {policies: "truncate_older_than:n=2,max_chars=200"}

or in Python, `DefaultAgent(LeylineModel(LitellmModel(...), policies=...), env, ...)`. The agent's
`messages` stay the full record; only what is sent is edited.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from leyline_adapters.harnesses.configured import configured
from leyline_adapters.harnesses.mini_swe_messages import MiniCodec, answered
from leyline_adapters.harnesses.native import Completion, Harness, NativeTurn, missing
from leyline_agent.adapter import Adapter, CallingAdapter
from leyline_agent.errors import AdapterError
from leyline_agent.policy import PolicyLike
from leyline_agent.settings import SessionOptions

try:
    from minisweagent.exceptions import FormatError
    from minisweagent.models import get_model
    from minisweagent.models.litellm_model import LitellmModel
    from minisweagent.models.litellm_response_model import LitellmResponseModel
    from minisweagent.models.litellm_textbased_model import LitellmTextbasedModel
    from minisweagent.models.utils.actions_toolcall import BASH_TOOL
    from minisweagent.utils.serialize import recursive_merge
except ImportError as error:
    raise missing("mini-swe-agent", "mini-swe-agent>=2.4", error) from error

__all__ = ["LeylineModel"]

_NAMED = ("policies", "adapter", "journal")


class LeylineModel:
    """A model of mini-swe-agent whose requests policies edit. All else is the inner model's.

    Args:
        model: the model to put policies around; None makes the one that `config` describes, as
            mini-swe-agent's command lines have it.
        policies, adapter: as for `leyline.Session`.
        journal: a folder; each session writes `<session id>.jsonl` in it.
        leyline: with `config`: these settings and the sessions' options by name, and in
            `model_class` the inner model's class. A setting that is not there is looked for in
            LEYLINE_POLICIES, LEYLINE_ADAPTER, LEYLINE_JOURNAL, LEYLINE_MODEL_CLASS.
        config: with a model, options of its sessions (`SessionOptions`); without one, the rest of
            mini-swe-agent's section `model`.

    Attributes:
        leyline: the last `sessions`, with their receipts, and in `bypassed` the calls that went
            out unedited and why.

    Raises:
        LeylineError: a setting does not fit, or there are no policies for a configured model.
    """

    def __init__(
        self,
        model: Any = None,
        policies: PolicyLike | None = None,
        adapter: Adapter | str | None = None,
        *,
        journal: str | os.PathLike[str] | None = None,
        leyline: Mapping[str, Any] | None = None,
        **config: Any,
    ) -> None:
        if model is None:
            given = {"policies": policies, "adapter": adapter, "journal": journal}
            given = {key: value for key, value in given.items() if value is not None}
            named = configured({**given, **(leyline or {})}, "model.leyline")
            inner = named.pop("model_class", os.environ.get("LEYLINE_MODEL_CLASS") or "")
            policies, adapter, journal = (named.pop(key) for key in _NAMED)
            model = get_model(config={**config, "model_class": inner})
            config = named
        options = SessionOptions(**config)  # type: ignore[typeddict-item]
        if hasattr(getattr(model, "config", None), "action_regex"):
            options = {"observations": "user", **options}  # It writes its calls as text.
        self._model = model
        self._harness = Harness("mini-swe-agent", MiniCodec(), policies, adapter, journal, options)
        self.leyline = self._harness.leyline

    def __getattr__(self, name: str) -> Any:
        if "_model" not in vars(self):  # While it is copied or unpickled.
            raise AttributeError(name)
        return getattr(self._model, name)

    def query(self, messages: list[dict[str, Any]], **kwargs: Any) -> dict[str, Any]:
        """The inner model's reply to the edited messages.

        Raises:
            FormatError: as the inner model does; its call was answered and is on record.
            AdapterError: the adapter makes the calls itself, which the model does not allow.
        """
        self._check()
        query = _Query(self._model, kwargs)
        given = getattr(self._model.config, "model_kwargs", {})
        turn = self._harness.begin(messages, _tools(self._model), **given)
        return query.result(turn.run(query.send, query.told, query.made))

    def _check(self) -> None:
        adapter = self.leyline.adapter
        if isinstance(adapter, CallingAdapter) and not _can_be_answered(self._model):
            raise AdapterError(
                f"adapter {adapter.name!r} makes the calls itself, which only stands in for "
                f"mini-swe-agent's litellm models, not for {type(self._model).__name__}"
            )

    def serialize(self) -> dict[str, Any]:
        """The inner model's part of a trajectory file, with what its messages were edited by."""
        known = self.leyline
        adapter = known.given_adapter or "openai"
        told = {
            "policies": str(known.policy),
            "adapter": adapter if isinstance(adapter, str) else adapter.name,
            "sessions": [session.id for session in known.sessions],
            "bypassed": list(known.bypassed),
        }
        merged: dict[str, Any] = recursive_merge(
            self._model.serialize(), {"info": {"config": {"leyline": told}}}
        )
        return merged


@dataclass
class _Outcome:
    """What a model did: a message for the agent, or a refusal that holds one."""

    native: dict[str, Any]
    refusal: Any = None


@dataclass
class _Query:
    """One query of the agent, which may take several calls.

    Attributes:
        model: the inner model.
        options: what the agent gave besides the messages.
        costs: dollars of each call so far.
    """

    model: Any
    options: dict[str, Any]
    costs: list[float] = field(default_factory=list)

    def send(self, turn: NativeTurn[dict[str, Any]]) -> _Outcome:
        """Call the inner model, with what the session and its adapter add."""
        model = _declaring(self.model, turn.tools) if turn.tools else self.model
        added = {key: turn.extra[key] for key in ("extra_body",) if key in turn.extra}
        return self._asked(model, turn.messages, {**self.options, **added})

    def made(self, answer: Completion) -> _Outcome:
        """What the inner model makes of an engine's answer."""
        return self._asked(_answering(self.model, answer), [], {})

    def told(self, outcome: _Outcome) -> Completion:
        """The outcome as a chat completion."""
        return answered(outcome.native)

    def result(self, outcome: _Outcome) -> dict[str, Any]:
        """The agent's message, or its refusal raised; both with the cost of all calls."""
        extra = outcome.native.get("extra")
        if extra and len(self.costs) > 1:
            outcome.native = {**outcome.native, "extra": {**extra, "cost": sum(self.costs)}}
        if outcome.refusal is None:
            return outcome.native
        outcome.refusal.messages = (outcome.native, *outcome.refusal.messages[1:])
        raise outcome.refusal

    def _asked(
        self, model: Any, messages: Sequence[dict[str, Any]], options: dict[str, Any]
    ) -> _Outcome:
        try:
            query = model.query if model is self.model else type(self.model).query.__get__(model)
            outcome = _Outcome(query(list(messages), **options))
        except FormatError as refusal:
            outcome = _Outcome(refusal.messages[0], refusal)
        self.costs.append((outcome.native.get("extra") or {}).get("cost") or 0.0)
        return outcome


class _Standing:
    """A litellm model with some of its methods replaced."""

    def __init__(self, model: Any, **methods: Callable[..., Any]) -> None:
        vars(self).update(methods, _model=model)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def _declaring(model: Any, tools: Sequence[Mapping[str, Any]]) -> _Standing:
    """The model with more tools: mini-swe-agent's own calls declare one, whatever is asked."""
    import litellm  # mini-swe-agent has imported it.

    def call(messages: list[dict[str, Any]], **kwargs: Any) -> Any:
        return litellm.completion(
            model=model.config.model_name,
            messages=messages,
            tools=[BASH_TOOL, *tools],
            **(model.config.model_kwargs | kwargs),
        )

    return _Standing(model, _query=call)


def _answering(model: Any, answer: Completion) -> _Standing:
    """The model with a call that has been answered already, at no cost in dollars."""
    import litellm

    response = litellm.ModelResponse(**answer)
    return _Standing(
        model,
        _query=lambda messages, **kwargs: response,
        _calculate_cost=lambda response: {"cost": 0.0},
    )


def _can_be_answered(model: Any) -> bool:
    return isinstance(model, LitellmModel) and not isinstance(model, LitellmResponseModel)


def _tools(model: Any) -> list[dict[str, Any]] | None:
    """The tools a session is told of, so that it may add its own; None where none can be added."""
    if _can_be_answered(model) and not isinstance(model, LitellmTextbasedModel):
        return [BASH_TOOL]
    return None
