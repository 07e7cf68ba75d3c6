"""OpenHands events (output.jsonl): a `history` of actions and observations.

The messages are rebuilt the way OpenHands builds its prompts: one assistant message a model
response, with the calls that response made, and one tool message an observation that answers one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from leyline_agent.errors import TrajectoryError
from leyline_agent.message import Message
from leyline_agent.readers.chat import Chat, assistant, normalise, tool_call, tool_result
from leyline_agent.readers.fields import items, mapping, mappings, maybe, text
from leyline_agent.readers.recording import Recording

__all__ = ["NAME", "matches", "recordings"]

NAME = "openhands-events"

# Events the model never sees.
_SILENT_ACTIONS = frozenset({"recall", "change_agent_state", "condensation", "null", "pause"})
_SILENT_OBSERVATIONS = frozenset({"agent_state_changed", "null"})
# Actions recorded without the call that made them, under the names of OpenHands' own tools.
_TOOLS = {"run": ("execute_bash", "command"), "run_ipython": ("execute_ipython_cell", "code")}
_BOOKKEEPING = frozenset({"thought", "confirmation_state", "security_risk", "blocking", "hidden"})


def matches(record: Any) -> bool:
    """An object whose `history` holds events, or old versions' pairs of them."""
    history = record.get("history") if isinstance(record, dict) else None
    if not isinstance(history, list) or not history:
        return False
    return all(_is_event(event) for event in _flat(history))


def _is_event(event: Any) -> bool:
    return isinstance(event, dict) and isinstance(
        event.get("observation", event.get("action")), str
    )


def _flat(history: list[Any]) -> Iterator[Any]:
    for entry in history:
        yield from entry if isinstance(entry, list) else (entry,)


def recordings(record: Mapping[str, Any]) -> Iterator[Recording]:
    """One run. A truthy `error` or `test_result.report.resolved` is kept."""
    events = [mapping(e, f"history[{i}]") for i, e in enumerate(_flat(record["history"]))]
    metadata = maybe(record.get("metadata"), dict) or {}
    metrics = maybe(record.get("metrics"), dict) or {}
    report = (maybe(record.get("test_result"), dict) or {}).get("report")
    model = (maybe(metadata.get("llm_config"), dict) or {}).get("model")
    yield Recording(
        id=str(record.get("instance_id") or ""),
        format=NAME,
        messages=tuple(_Events().read(events)),
        tools=_tools(events),
        usage=tuple(mappings(metrics.get("token_usages"), "metrics.token_usages")),
        resolved=maybe(report.get("resolved"), bool) if isinstance(report, dict) else None,
        meta={
            **({"model": model} if model else {}),
            **({"error": record["error"]} if record.get("error") else {}),
        },
    )


def _tools(events: list[dict[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    for event in events:
        if event.get("action") == "system":
            args = mapping(event.get("args"), "history.args")
            return tuple(mappings(args.get("tools"), "history.args.tools"))
    return ()


class _Events:
    """Turns events into messages. What arrives between a call and its results waits for them."""

    def __init__(self) -> None:
        self.chat = Chat()
        self.responses: set[str] = set()
        self.waiting: list[Message] = []

    def read(self, events: list[dict[str, Any]]) -> list[Message]:
        for index, event in enumerate(events):
            self._event(event, f"history[{index}]")
        self._flush()
        return self.chat.messages

    def _event(self, event: Mapping[str, Any], where: str) -> None:
        if "observation" in event:
            self._observation(event, where)
        elif event["action"] not in _SILENT_ACTIONS:
            self._action(event, where)

    def _action(self, event: Mapping[str, Any], where: str) -> None:
        metadata = event.get("tool_call_metadata")
        args = mapping(event.get("args") or {}, f"{where}.args")
        if metadata is not None:
            self._response(mapping(metadata, f"{where}.tool_call_metadata"), where)
        elif event["action"] in ("message", "system") or event.get("source") == "user":
            self._said(event, args, where)
        else:
            self._flush()
            self.chat.add(
                assistant(text(args.get("thought"), where) or None, [self._call(event, args)])
            )

    def _response(self, metadata: Mapping[str, Any], where: str) -> None:
        """The assistant message of a model response, once however many actions it led to."""
        response = mapping(metadata.get("model_response"), f"{where}.model_response")
        choices = mappings(response.get("choices"), f"{where}.model_response.choices")
        if not choices:
            raise TrajectoryError(f"{where}.model_response: no choices; the call it made is lost")
        key = str(response.get("id") or metadata.get("tool_call_id"))
        if key in self.responses:
            return
        self.responses.add(key)
        self._flush()
        for message in normalise([choices[0].get("message")], f"{where}.model_response.choices"):
            self.chat.add(message)

    def _said(self, event: Mapping[str, Any], args: Mapping[str, Any], where: str) -> None:
        content = text(args.get("content"), f"{where}.args.content")
        if event["action"] == "system":
            self._add({"role": "system", "content": content})
        elif event["action"] == "run":
            command = text(args.get("command"), f"{where}.args.command")
            self._add({"role": "user", "content": f"User executed the command:\n{command}"})
        elif event.get("source") == "user":
            self._add({"role": "user", "content": content})
        else:
            self._add(assistant(content))

    def _call(self, event: Mapping[str, Any], args: Mapping[str, Any]) -> dict[str, Any]:
        name, *only = _TOOLS.get(event["action"], (str(event["action"]),))
        kept = {k: v for k, v in args.items() if k not in _BOOKKEEPING and v is not None}
        return tool_call(self.chat.new_id(), name, {k: kept.get(k) for k in only} if only else kept)

    def _observation(self, event: Mapping[str, Any], where: str) -> None:
        if event["observation"] in _SILENT_OBSERVATIONS:
            return
        content, is_error = _shown(event, where), event["observation"] == "error"
        if content is None:
            return
        metadata = maybe(event.get("tool_call_metadata"), dict) or {}
        call_id = metadata.get("tool_call_id") or self._open_call(event)
        if call_id is None:
            message: Message = {"role": "user", "content": content}
            self._add({**message, "is_error": True} if is_error else message)
            return
        code = _exit_code(event)
        self.chat.add(tool_result(str(call_id), content, is_error=is_error, exit_code=code))
        if not self.chat.open_calls:
            self._flush()

    def _open_call(self, event: Mapping[str, Any]) -> str | None:
        """The call an observation without metadata answers: an action's own, made up here."""
        if event.get("source") in ("user", "environment") or event["observation"] == "recall":
            return None
        made_up = [call for call in self.chat.open_calls if call.startswith("call_")]
        return made_up[0] if made_up else None

    def _add(self, message: Message) -> None:
        if self.chat.open_calls:
            self.waiting.append(message)
        else:
            self.chat.add(message)

    def _flush(self) -> None:
        for message in self.waiting:
            self.chat.add(message)
        self.waiting = []


def _shown(event: Mapping[str, Any], where: str) -> str | None:
    """An observation's text as OpenHands puts it into the prompt; None for nothing."""
    content = text(event.get("content"), f"{where}.content")
    extras = maybe(event.get("extras"), dict) or {}
    kind = event["observation"]
    if kind == "run":
        content = _run_output(content, maybe(extras.get("metadata"), dict) or {})
        if event.get("source") == "user":
            return f"\nObserved result of command executed by user:\n{content}"
    elif kind == "error":
        return f"{content}\n[Error occurred in processing last action]"
    elif kind == "user_rejected":
        return f"OBSERVATION:\n{content}\n[Last action has been rejected by the user]"
    elif kind == "recall":
        return _recalled(extras)
    return content


def _run_output(content: str, metadata: Mapping[str, Any]) -> str:
    shown = f"{metadata.get('prefix') or ''}{content}{metadata.get('suffix') or ''}"
    if metadata.get("working_dir"):
        shown += f"\n[Current working directory: {metadata['working_dir']}]"
    if metadata.get("py_interpreter_path"):
        shown += f"\n[Python interpreter: {metadata['py_interpreter_path']}]"
    if metadata.get("exit_code", -1) != -1:
        shown += f"\n[Command finished with exit code {metadata['exit_code']}]"
    return shown


def _recalled(extras: Mapping[str, Any]) -> str | None:
    """What OpenHands adds to the prompt of its own accord: repository facts and triggered hints."""
    texts = [extras.get("repo_instructions"), extras.get("additional_agent_instructions")]
    for item in items(extras.get("microagent_knowledge"), "extras.microagent_knowledge"):
        hint = mapping(item, "extras.microagent_knowledge")
        texts.append(
            "The following information has been included based on a keyword match for "
            f'"{hint.get("trigger")}".\n{hint.get("content")}'
        )
    return "\n\n".join(t for t in texts if isinstance(t, str) and t.strip()) or None


def _exit_code(event: Mapping[str, Any]) -> int | None:
    extras = maybe(event.get("extras"), dict) or {}
    metadata = maybe(extras.get("metadata"), dict) or {}
    return maybe(metadata.get("exit_code", extras.get("exit_code")), int)
