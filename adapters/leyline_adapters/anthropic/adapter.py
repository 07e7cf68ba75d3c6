"""Anthropic's API: receipts of its cache, and context editing on its servers where asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leyline_agent import response as reading
from leyline_agent.adapter import Adapter, Capabilities, Commit, Request
from leyline_agent.directive import Mode
from leyline_agent.policy import Pipeline, Policy
from leyline_agent.receipt import EditReceipt, Receipt
from leyline_agent.settings import Settings

__all__ = ["AnthropicAdapter"]

BETA = "context-management-2025-06-27"
KIND = "clear_tool_uses_20250919"
_POLICY = "clear_tool_uses"
_CLEARED = EditReceipt(
    id=KIND,
    mode_asked=Mode.FORGET,
    mode_used=Mode.FORGET,
    policy=_POLICY,
    by_provider=True,
)


@dataclass(frozen=True)
class AnthropicAdapter:
    """For Anthropic's API, through its own client, litellm or a proxy.

    The receipt is what `usage` says: the prompt is what was read from the cache, written to it and
    neither. Whatever follows an edit is prefilled again, unless a breakpoint stands before it.

    Attributes:
        server_side: leave the policy `clear_tool_uses` to Anthropic's servers where it means the
            same there; where it does not, messages are edited here and receipts say why.
        edit: what the servers are asked to do; set for each session.
        refused: why the policy is not left to them; likewise.
    """

    server_side: bool = False
    edit: Mapping[str, Any] | None = None
    refused: str = ""

    name = "anthropic"

    @property
    def capabilities(self) -> Capabilities:
        """No splices; whether the servers edit by themselves."""
        return Capabilities(modes=frozenset({Mode.FORGET}), edits_itself=self.edit is not None)

    def delegated(self, policy: Policy, settings: Settings) -> tuple[Adapter, Policy]:
        """This adapter for one session, and the policies that are left to be run here."""
        if not self.server_side:
            return self, policy
        parts = _leaves(policy)
        refused = _refused(parts, settings)
        if refused:
            told = f"{_POLICY} edits here, not on the server: {refused}"
            return AnthropicAdapter(True, None, told), policy
        return AnthropicAdapter(True, _edit(parts[-1])), Pipeline(policies=parts[:-1])

    def prepare(self, request: Request, commit: Commit) -> Request:
        """The request, with the edit asked of the servers unless the caller asks for its own."""
        body = request.get("extra_body") or {}
        if self.edit is None or "context_management" in (*request, *body):
            return request
        asked = {"context_management": {"edits": [dict(self.edit)]}}
        whole = {**request, "extra_body": {**body, **asked}}
        if "betas" in request:
            return {**whole, "betas": [*request["betas"], BETA]}
        headers = dict(request.get("extra_headers") or {})
        name = next((n for n in headers if n.lower() == "anthropic-beta"), "anthropic-beta")
        given = [headers[name]] if headers.get(name) else []
        return {**whole, "extra_headers": {**headers, name: ",".join([*given, BETA])}}

    def receipt(self, response: Mapping[str, Any]) -> Receipt | None:
        """What `usage` says, and what the servers edited; None where nothing is counted."""
        usage = reading.usage(response)
        if usage is None:
            return None
        ours = [edit for edit in _applied(response) if edit.get("type") == KIND]
        made = Receipt.from_usage(usage, detail=self.refused)
        cleared = sum(int(edit.get("cleared_input_tokens") or 0) for edit in ours)
        return made.model_copy(
            update={
                "removed": cleared,
                "appended": made.prompt + cleared,
                "edits": (_CLEARED,) * len(ours),
            }
        )


def _applied(response: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The servers' edits, where Anthropic tells them or where litellm does."""
    managed = response.get("context_management")
    if managed is None:
        fields = (reading.reply(response) or {}).get("provider_specific_fields")
        managed = fields.get("context_management") if isinstance(fields, Mapping) else None
    applied = managed.get("applied_edits") if isinstance(managed, Mapping) else None
    return [edit for edit in applied or () if isinstance(edit, Mapping)]


def _leaves(policy: Policy) -> tuple[Policy, ...]:
    if isinstance(policy, Pipeline):
        return tuple(leaf for part in policy.policies for leaf in _leaves(part))
    return (policy,)


def _refused(parts: Sequence[Policy], settings: Settings) -> str:
    """Why the servers would do something else; "" when they would not."""
    count = sum(part.name == _POLICY for part in parts)
    if not count:
        return "it is not among the policies, or inside another one"
    policy: Any = parts[-1]
    if policy.name != _POLICY:
        return "policies behind it would see what it has cleared"
    if count > 1:
        return "it is there twice"
    if policy.at_least != "all_or_nothing":
        return f"at_least={policy.at_least!r} is not what clear_at_least means there"
    if policy.placeholder != type(policy).model_fields["placeholder"].default:
        return "a placeholder of one's own cannot be sent"
    if settings.pinned is not None:
        return "the server knows of no pinned messages"
    if settings.recall:
        return "what the server clears cannot be recalled"
    if settings.observations != "tool":
        return "observations='user' has no tool uses"
    return ""


def _edit(policy: Any) -> dict[str, Any]:
    """The policy in Anthropic's words."""
    edit: dict[str, Any] = {
        "type": KIND,
        "trigger": {"type": "input_tokens", "value": policy.trigger},
        "keep": {"type": "tool_uses", "value": policy.keep},
    }
    if policy.clear_at_least:
        edit["clear_at_least"] = {"type": "input_tokens", "value": policy.clear_at_least}
    if policy.exclude_tools:
        edit["exclude_tools"] = list(policy.exclude_tools)
    if policy.clear_tool_inputs:
        edit["clear_tool_inputs"] = True
    return edit
