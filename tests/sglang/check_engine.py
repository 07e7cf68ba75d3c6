"""Drives a real SGLang engine with Leyline's radix cache; `scripts/test-sglang` runs it.

    python check_engine.py MODEL_FOLDER

Not part of any suite: SGLang starts on a CPU only with stubs (`stubs.py`), and takes a minute or
two to do it. Prints one line a check and ends with 0 when all hold.
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

TEXT = Path(__file__).parents[2] / "docs" / "engine.md"
SLOTS = 4000


class Engine:
    """An engine with the plug-in, which must find it by its entry point."""

    def __init__(self, folder: str) -> None:
        import sglang
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.engine = sglang.Engine(
            model_path=folder,
            device="cpu",
            dtype="bfloat16",
            attention_backend="torch_native",
            sampling_backend="pytorch",
            grammar_backend="none",
            max_total_tokens=SLOTS,
            max_running_requests=4,
            chunked_prefill_size=256,
            disable_overlap_schedule=True,
            skip_server_warmup=True,
            radix_cache_backend="leyline",
            log_level="warning",
        )

    def ask(self, tokens: list[int], ask: dict[str, Any] | None, new: int = 1) -> dict[str, Any]:
        """Complete; the meta information of the answer, with the sampled ids beside it."""
        params: dict[str, Any] = {"max_new_tokens": new, "temperature": 0, "ignore_eos": True}
        if ask is not None:
            params["custom_params"] = {"leyline": json.dumps({"session": "s", **ask})}
        answer = self.engine.generate(
            input_ids=tokens, sampling_params=params, return_logprob=True, top_logprobs_num=50
        )
        told = answer["meta_info"].get("leyline") or [{}]
        return {**answer["meta_info"], "told": told[0], "ids": answer["output_ids"]}

    def stream(self, tokens: list[int], ask: dict[str, Any]) -> list[dict[str, Any]]:
        """What each chunk of a stream is told."""
        params = {"max_new_tokens": 3, "temperature": 0, "ignore_eos": True}
        params["custom_params"] = {"leyline": json.dumps({"session": "s", **ask})}
        chunks = self.engine.generate(input_ids=tokens, sampling_params=params, stream=True)
        return [chunk["meta_info"].get("leyline") or [] for chunk in chunks]


def claim(source: str, start: int, end: int, at: int) -> dict[str, Any]:
    return {"source": source, "start": start, "end": end, "at": at}


def kl(honest: dict[str, Any], other: dict[str, Any]) -> float:
    """KL(honest || other) over the honest first token's 50 likeliest that both name."""
    there = {ids: value for value, ids, _ in other["output_top_logprobs"][0]}
    return sum(
        math.exp(value) * (value - there[ids])
        for value, ids, _ in honest["output_top_logprobs"][0]
        if ids in there
    )


class Checks:
    """The checks, in an order: later ones use what earlier ones left in the cache."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        ids = engine.tokenizer(TEXT.read_text(encoding="utf-8"))["input_ids"]
        self.head, self.cut, self.tail = ids[:200], ids[200:500], ids[500:1100]
        self.new = engine.tokenizer("\n\nIn one sentence, the engine is")["input_ids"]
        self.whole = self.head + self.cut + self.tail
        self.edited = self.head + self.tail + self.new

    def expect(self, what: str, answer: dict[str, Any], **figures: Any) -> dict[str, Any]:
        told = answer["told"]
        found = {"cached": answer["cached_tokens"], **told}
        wrong = {key: found.get(key) for key, value in figures.items() if found.get(key) != value}
        print(f"{'ok  ' if not wrong else 'WRONG'} {what}: {found}", flush=True)
        if wrong:
            raise SystemExit(f"{what}: expected {figures}, found {wrong}")
        return answer

    def run(self) -> None:
        a, b, x = len(self.head), len(self.tail), len(self.cut)
        first = self.expect(
            "a first request is an ordinary prefill and gets a handle",
            self.engine.ask(self.whole, {}, new=4),
            cached=0,
            reused_exact=0,
            prefilled=len(self.whole),
            reason="asked",
        )["told"]["handle"]
        claims = [claim(first, 0, a, 0), claim(first, a + x, a + x + b, a)]
        spliced = self.expect(
            "a deletion is spliced",
            self.engine.ask(self.edited, {"base": first, "claims": claims}),
            cached=a + b,
            reused_exact=a,
            reused_spliced=b,
            prefilled=len(self.new),
            spliced_from=a,
            reason="asked",
        )
        honest = self.expect(
            "the same prompt without an ask finds the canonical prefix and no more",
            self.engine.ask(self.edited, None),
            cached=a,
        )
        apart = kl(honest, spliced)
        same = honest["ids"][0] == spliced["ids"][0]
        print(f"     next token the same: {same}; KL(honest || spliced) {apart:.4f}", flush=True)
        if apart > 0.2:
            raise SystemExit("the splice changed the prediction too much")
        self.more(first, spliced["told"]["handle"], claims)

    def more(self, first: str, second: str, claims: list[dict[str, Any]]) -> None:
        a, b, x = len(self.head), len(self.tail), len(self.cut)
        self.expect(
            "a retry finds the copy and makes none",
            self.engine.ask(self.edited, {"base": first, "claims": claims}),
            reused_spliced=b + len(self.new) - 1,
            splice_us=0.0,
        )
        longer = self.edited + self.head[:50]
        self.expect(
            "the lineage goes on without a copy",
            self.engine.ask(
                longer,
                {"base": second, "claims": [claim(second, 0, len(self.edited), 0)]},
            ),
            cached=len(self.edited),
            reused_exact=a,
            splice_us=0.0,
            spliced_from=a,
            reason="asked",
        )
        self.expect(
            "another session's handle is not known",
            self.engine.ask(self.edited + [5], {"session": "t", "base": first, "claims": claims}),
            reason="unknown_session",
            reused_spliced=0,
        )
        wrong = [claim(first, 0, a, 0), claim(first, a + x - 10, a + x + b - 10, a)]
        self.expect(
            "a claim of other tokens is not believed",
            self.engine.ask(self.edited + [6], {"base": first, "claims": wrong}),
            reason="invalid_edit",
            reused_spliced=0,
        )
        self.expect(
            "an ask that cannot be read is said",
            self.engine.ask(self.head[:20], {"claims": "all"}),
            reason="invalid_edit",
        )
        told = self.engine.stream(self.edited, {"base": first, "claims": claims})
        print(f"ok   a stream is told: {told}", flush=True)
        if not told[0] or told[0][0]["reused_spliced"] < b:
            raise SystemExit(f"the stream's first chunk tells nothing: {told}")
        self.replaced(first)
        self.chained(second)
        self.evicted(first)

    def replaced(self, first: str) -> None:
        a, b, x = len(self.head), len(self.tail), len(self.cut)
        stub = self.new[:6]
        step = self.expect(
            "a replacement's first step computes the new tokens",
            self.engine.ask(self.head + stub, {"base": first, "claims": [claim(first, 0, a, 0)]}),
            cached=a,
            prefilled=len(stub),
        )["told"]["handle"]
        prompt = self.head + stub + self.tail + self.new
        claims = [claim(step, 0, a + len(stub), 0), claim(first, a + x, a + x + b, a + len(stub))]
        self.expect(
            "and its second splices what stands behind them",
            self.engine.ask(prompt, {"base": step, "claims": claims}),
            reused_exact=a + len(stub),
            reused_spliced=b,
            prefilled=len(self.new),
        )

    def chained(self, second: str) -> None:
        a = len(self.head)
        held = len(self.edited)
        prompt = self.edited[: a + 100] + self.edited[a + 150 :] + self.new
        claims = [claim(second, 0, a + 100, 0), claim(second, a + 150, held, a + 100)]
        self.expect(
            "an edit behind an edit",
            self.engine.ask(prompt, {"base": second, "claims": claims}),
            reused_exact=a,
            reused_spliced=held - 50 - a,
            prefilled=len(self.new),
            spliced_from=a,
        )

    def evicted(self, first: str) -> None:
        a, b, x = len(self.head), len(self.tail), len(self.cut)
        for seed in range(4):
            self.engine.ask([1000 + seed * 7 + i % 97 * 11 for i in range(SLOTS // 3)], None)
        claims = [claim(first, 0, a, 0), claim(first, a + x, a + x + b, a)]
        self.expect(
            "sources that were evicted are prefilled, with the reason",
            self.engine.ask(self.edited + [7, 8], {"base": first, "claims": claims}),
            reason="evicted",
            cached=0,
        )
        self.expect(
            "and what they were computed to is canonical",
            self.engine.ask(self.edited + [7, 8, 9], None),
            cached=len(self.edited) + 2,
        )
        while not self.engine.engine.flush_cache().success:  # refused while a request winds up
            time.sleep(0.5)
        self.expect(
            "a flushed cache knows no handles",
            self.engine.ask(self.edited + [9], {"base": first, "claims": claims}),
            reason="unknown_session",
            cached=0,
        )


def main() -> None:
    engine = Engine(sys.argv[1])
    try:
        Checks(engine).run()
    finally:
        engine.engine.shutdown()
    print("all checks hold", flush=True)


if __name__ == "__main__":
    main()
