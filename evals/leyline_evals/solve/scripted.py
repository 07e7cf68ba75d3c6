"""The scripted model: what each driver says an agent would say, behind a simulated engine.

It is deterministic, takes no time, and its tokens are counted, so that everything but a model is
tested with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from leyline_agent._version import __version__
from leyline_agent.adapter import Request
from leyline_agent.testing import DeterministicModel, MockAdapter
from leyline_agent.testing.model import Reply
from leyline_evals.solve.arms import Mechanism
from leyline_evals.solve.backend import Channel
from leyline_evals.solve.tally import Heard

__all__ = ["Scripted"]


class Scripted:
    """A backend whose model is the driver's script; at its end it says nothing, over and over."""

    def __enter__(self) -> Scripted:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing is held."""

    def open(self, mechanism: Mechanism, tenant: str, script: Sequence[Reply]) -> Channel:
        """A model of its own for each episode."""
        model = DeterministicModel(*script, *[""] * 1000)
        if mechanism.declares:
            adapter = MockAdapter(model)
            return Channel(adapter, lambda request: Heard(adapter.complete(request)))

        def call(request: Request) -> Heard:
            answer = model.complete(request)
            if mechanism is Mechanism.PLAIN:
                answer["usage"]["prompt_tokens_details"]["cached_tokens"] = 0
            return Heard(answer)

        return Channel(None, call)

    def versions(self) -> dict[str, str]:
        """The script is the driver's, the simulation ours."""
        return {"scripted": __version__}
