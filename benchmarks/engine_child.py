"""One engine in a process of its own, for engines.py and engine_fidelity.py.

    python engine_child.py '{"engine": "bundled", "model": "...", "threads": 2}'

Prints one JSON line when ready and one for every JSON line it reads. Engines are reached as users
reach them: a session, its adapter, a streamed call. Runs under whichever interpreter has the
engine; the checkout must be on its path.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import leyline_agent as leyline
from leyline_adapters.openai_compatible import OpenAICompatibleAdapter
from leyline_agent.errors import ContextOverflow
from leyline_agent.policy import parse
from leyline_agent.readers import read
from leyline_evals.replay.arms import Arm, policy_of

REPLY_TOKENS = 4
WORDS = (
    "after again back because before begin call change close come count day each end even file "
    "find first from give good group hand hard head help high home house keep kind know large "
    "last leave left life light line list little live long look make many may mean might more "
    "most move much must name near need never new next night not now number off old only open "
    "order other our out over own part people place plan play point power put right run"
).split()


def text(name: str, words: int, rng: random.Random) -> str:
    """A line that names it, and words: about as many tokens."""
    return f"{name}\n{' '.join(rng.choices(WORDS, k=words))}"


class Planned(leyline.Policy):
    """Drops file A before the second question, stubs file B before the third."""

    def edits(self, trajectory: leyline.Trajectory) -> Iterable[leyline.Edit]:
        """At most one of each."""
        asked = sum(_begins(m, "Question") for m in trajectory.original.messages)
        for index, message in enumerate(trajectory.messages):
            if asked >= 2 and _begins(message, "File A"):
                yield leyline.Edit(index, index + 2, reason="dropped")
            if asked >= 3 and _begins(message, "File B"):
                stub = {"role": "user", "content": "File B was read; it is not needed now."}
                yield leyline.Edit(index, index + 1, (stub,), reason="stubbed")


def _begins(message: Mapping[str, Any], name: str) -> bool:
    return message["role"] == "user" and str(message["content"]).startswith(name)


def conversation(mark: str, scale: float) -> list[dict[str, Any]]:
    """Some 5,000 tokens at scale 1: a system prompt, a task, three files that were read."""
    rng = random.Random("the same in every arm")
    messages = [
        {"role": "system", "content": text(mark, int(400 * scale), rng)},
        {"role": "user", "content": "Read the files, then answer."},
        {"role": "assistant", "content": "I read them."},
    ]
    for name in ("File A", "File B", "File C"):
        messages.append({"role": "user", "content": text(name, int(1500 * scale), rng)})
        messages.append({"role": "assistant", "content": f"I have read {name.lower()}."})
    return messages


class Engine:
    """An adapter that makes calls, and a stopwatch around it."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.version = ""
        self.carrier = self._open(spec)

    def _open(self, spec: Mapping[str, Any]) -> Any:
        kind, model = spec["engine"], spec["model"]
        if kind == "vllm":
            from leyline_adapters.vllm.adapter import VllmAdapter

            return VllmAdapter(spec["url"], model=model)
        if kind == "llama.cpp":
            import llama_cpp

            from leyline_adapters.llama_cpp.adapter import LlamaCppAdapter

            self.version = f"llama-cpp-python {llama_cpp.__version__}"
            path = dense(model, spec["folder"])
            return LlamaCppAdapter.load(path, cells=spec["cells"], threads=spec["threads"])
        import torch

        from leyline_adapters.bundled.in_process import BundledAdapter
        from leyline_agent.serving.engine import EngineConfig

        torch.set_num_threads(spec["threads"])
        self.version = f"leyline {leyline.__version__}, torch {torch.__version__}"
        return BundledAdapter.load(model, EngineConfig(kv_bytes=spec["kv_bytes"]))

    def told(self, arm: Arm) -> Any:
        """The adapter of an arm's sessions: a prefix cache is told of no edits."""
        return self.carrier if arm.declares else OpenAICompatibleAdapter()

    def call(self, request: Mapping[str, Any], **more: Any) -> tuple[dict[str, Any], float]:
        """A streamed call: the response as a completion, and milliseconds to its first token."""
        more = {"temperature": 0.0, "stream_options": {"include_usage": True}, **more}
        response: dict[str, Any] = {}
        said, probabilities, first = "", [], None
        started = time.perf_counter()
        for chunk in self.carrier.stream({**request, **more}):
            for choice in chunk.get("choices") or ():
                content = (choice.get("delta") or {}).get("content") or ""
                if first is None and content:
                    first = time.perf_counter() - started
                said += content
                probabilities += (choice.get("logprobs") or {}).get("content") or ()
            keys = ("leyline", "usage", "kv_transfer_params")
            response |= {key: chunk[key] for key in keys if chunk.get(key)}
        ended = time.perf_counter() - started
        message = {"role": "assistant", "content": said or "..."}
        response["choices"] = [{"index": 0, "message": message, "finish_reason": "stop"}]
        response["logprobs"] = probabilities
        return response, (first or ended) * 1e3


def dense(model: str, folder: str) -> Path:
    """The GGUF file in F16: what the others compute with, as near as llama.cpp comes to it."""
    import llama_cpp

    from leyline_agent.serving.models.embedded import resolve

    source = Path(resolve(model))
    target = Path(folder) / f"{source.stem}-F16.gguf"
    if not target.exists():
        options = llama_cpp.llama_model_quantize_default_params()
        options.ftype, options.allow_requantize = 1, True  # LLAMA_FTYPE_MOSTLY_F16
        if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), options):
            raise SystemExit(f"{source} could not be converted to F16")
    return target


def peak_mb() -> float:
    """The most memory this process has had."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def play(engine: Engine, job: Mapping[str, Any]) -> dict[str, Any]:
    """One conversation in one arm: a prompt, a cut, a replacement, and a turn without edits."""
    arm = Arm(job["arm"])
    policy = policy_of(arm, Planned())
    session = leyline.Session(policy, engine.told(arm), id=job["mark"])
    messages = conversation(job["mark"], job["scale"])
    rows = []
    for number, name in enumerate(("prompt", "cut", "stub", "append"), 1):
        messages.append({"role": "user", "content": f"Question {number}: what is the answer?"})
        started = time.perf_counter()
        turn = session.begin(messages)
        assert not turn.skipped, turn.skipped
        begun = (time.perf_counter() - started) * 1e3
        response, ttft = engine.call(turn.request, max_tokens=REPLY_TOKENS)
        receipt = turn.finish(response)
        messages.append(response["choices"][0]["message"])
        rows.append({"turn": name, "ttft_ms": round(begun + ttft, 3), **figures(receipt)})
    if hasattr(engine.carrier, "drop"):
        engine.carrier.drop(job["mark"])
    return {"turns": rows, "peak_mb": peak_mb()}


def figures(receipt: Any) -> dict[str, Any]:
    """What of a receipt is kept."""
    names = ("prompt", "reused_exact", "reused_spliced", "recomputed", "prefilled", "splice_us")
    kept = {name: getattr(receipt, name) for name in names}
    return {**kept, "new": receipt.inserted + receipt.appended, "reason": receipt.reason.value}


def compare(engine: Engine, job: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What edited turns of a recorded run predict: spliced, re-prefilled, and that once more.

    Without the run's tools: SmolLM2's template shows none, and vLLM wants a parser for them.
    """
    arm = Arm(job["arm"])
    recording = next(one for at, one in enumerate(read(job["file"])) if at == job["number"])
    places = edited(recording, job)
    session = leyline.Session(policy_of(arm, parse(job["policy"])), engine.told(arm))
    wanted = {"max_tokens": job["tokens"], "logprobs": True, "top_logprobs": job["top"]}
    for index in replies(recording, until=max(places, default=-1)):
        measured = index in places
        turn = session.begin(list(recording.messages[:index]))
        try:
            response, _ = engine.call(turn.request, **(wanted if measured else {"max_tokens": 1}))
        except ContextOverflow as error:
            turn.fail(error)
            break
        # The run goes on as it was recorded.
        response["choices"][0]["message"] = recording.messages[index]
        receipt = turn.finish(response)
        if not measured or not receipt.reused_spliced:
            continue
        plain = {key: value for key, value in turn.request.items() if key != "extra_body"}
        others = [engine.call(plain, **wanted)[0]["logprobs"] for _ in range(2)]
        said = {"spliced": response["logprobs"], "honest": others[0], "again": others[1]}
        yield {"index": index, **figures(receipt), "said": {k: kept(v) for k, v in said.items()}}


def replies(recording: Any, until: int) -> Iterator[int]:
    """Places of the recorded replies, up to and with `until`."""
    for index, message in enumerate(recording.messages[: until + 1]):
        if index and message["role"] == "assistant":
            yield index


def edited(recording: Any, job: Mapping[str, Any]) -> list[int]:
    """Places of `turns` replies whose turns edit something, evenly spaced, found without a model.

    Of prompts of up to `chars` characters: longer ones may not fit the context.
    """
    session = leyline.Session(parse(job["policy"]))
    found = []
    for index in replies(recording, len(recording.messages)):
        turn = session.begin(list(recording.messages[:index]))
        turn.finish(recording.messages[index])
        if len(json.dumps(turn.request["messages"])) > job["chars"]:
            break
        if turn.edits:
            found.append(index)
    count = min(job["turns"], len(found))
    return [found[(2 * at + 1) * len(found) // (2 * count)] for at in range(count)]


def kept(content: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The tokens of a reply, each with its alternatives' log probabilities."""
    return [
        {
            "token": one["token"],
            "top": {other["token"]: round(other["logprob"], 5) for other in one["top_logprobs"]},
        }
        for one in content
    ]


def main() -> None:
    """Answer jobs until the input ends."""
    warnings.simplefilter("ignore", leyline.LeylineWarning)
    answers = os.fdopen(os.dup(1), "w", buffering=1)  # what engines print goes elsewhere
    os.dup2(2, 1)
    engine = Engine(json.loads(sys.argv[1]))
    print(json.dumps({"version": engine.version}), file=answers)
    for line in sys.stdin:
        job = json.loads(line)
        if job["do"] == "compare":
            found: Any = {"rows": list(compare(engine, job)), "peak_mb": peak_mb()}
        else:
            found = play(engine, job)
        print(json.dumps(found), file=answers)


if __name__ == "__main__":
    main()
