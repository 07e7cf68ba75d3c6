"""OpenTelemetry: a span for every turn, its edits as events, and metrics. Off unless asked for.

    from leyline_agent import telemetry

    telemetry.enable()  # every session of this process; or LEYLINE_TELEMETRY=otel

or of some sessions only: `Session(..., observers=[telemetry.Telemetry()])`. docs/observability.md
has the names. Needs the extra `otel`; nothing of it is imported before it is asked for.
"""

from __future__ import annotations

from typing import Any

from leyline_agent import observer
from leyline_agent.errors import LeylineError
from leyline_agent.telemetry.turns import Telemetry

__all__ = ["Telemetry", "disable", "enable"]

_enabled: Telemetry | None = None


def enable(
    *,
    content: bool = False,
    provider: str | None = None,
    tracer_provider: Any = None,
    meter_provider: Any = None,
) -> Telemetry:
    """Tell OpenTelemetry of every turn of every session in this process, from now on.

    Enabled again it goes by the new arguments. They are those of `Telemetry`.

    Raises:
        LeylineError: opentelemetry-api is not installed.
    """
    global _enabled
    made = Telemetry(
        content=content,
        provider=provider,
        tracer_provider=tracer_provider,
        meter_provider=meter_provider,
    )
    disable()
    _enabled = made
    observer.observe(made)
    return made


def disable() -> None:
    """Tell it of no turn any more; the spans of those that are open end as abandoned."""
    global _enabled
    if _enabled is not None:
        observer.stop(_enabled)
        _enabled.close()
        _enabled = None


def enable_as_named(name: str) -> None:
    """What LEYLINE_TELEMETRY asks for; where telemetry is enabled already it stays as it is.

    Raises:
        LeylineError: the name is not known, or opentelemetry-api is not installed.
    """
    if name != "otel":
        raise LeylineError(f"LEYLINE_TELEMETRY={name!r} is not known; use 'otel', or unset it")
    if _enabled is None:
        enable()
