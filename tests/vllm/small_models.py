"""Runs in vLLM's environment: an edit on each of some small models, one server after another.

    python small_models.py CASES.json        prints one line of JSON, whatever vLLM prints before

A case: `name`, `model` (a folder), `options` of `LLM`, `connector` (the transfer config) and
perhaps `lora` (a folder), `environment`, `fails` (a rank). A prompt is kept as a source, then
edited; the edited prompt is also prefilled for another tenant.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.update(
    VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_CPU_KVCACHE_SPACE="1", VLLM_LOGGING_LEVEL="WARNING",
    VLLM_CPU_NUM_OF_RESERVED_CPU="0", VLLM_NO_USAGE_STATS="1", DO_NOT_TRACK="1",
)  # fmt: skip

A, X, B, Q = list(range(3, 73)), list(range(80, 120)), list(range(121, 221)), [9, 11, 13, 17, 19]


def run(case: dict[str, Any]) -> dict[str, Any]:
    """What the connector told of a source and of its edit, and the tokens behind the edit."""
    os.environ.update(case.get("environment", {}))
    from vllm import LLM, SamplingParams
    from vllm.config import KVTransferConfig
    from vllm.lora.request import LoRARequest

    llm = LLM(
        model=case["model"], skip_tokenizer_init=True, enforce_eager=True, max_model_len=512,
        kv_transfer_config=KVTransferConfig(**case["connector"]), **case["options"],
    )  # fmt: skip
    lora = LoRARequest("lora", 1, case["lora"]) if case.get("lora") else None

    def ask(
        tokens: list[int], said: dict[str, Any], salt: str = "mine"
    ) -> tuple[dict[str, Any], dict[int, float]]:
        params = SamplingParams(
            max_tokens=1, temperature=0, logprobs=10, detokenize=False,
            extra_args={"kv_transfer_params": {"leyline": said}},
        )  # fmt: skip
        (found,) = llm.generate(
            [{"prompt_token_ids": tokens, "cache_salt": salt}],
            params,
            use_tqdm=False,
            lora_request=lora,
        )
        told = (found.kv_transfer_params or {}).get("leyline", {})
        tops = found.outputs[0].logprobs[0]
        return told, {token: one.logprob for token, one in tops.items()}

    source, _ = ask(A + X + B, {"session": "s"})
    handle = source.get("handle") or "none"
    claims = [
        {"source": handle, "start": 0, "end": len(A), "at": 0},
        {"source": handle, "start": len(A + X), "end": len(A + X + B), "at": len(A)},
    ]
    edited, tops = ask(A + B + Q, {"session": "s", "base": handle, "claims": claims})
    _, plain_tops = ask(A + B + Q, {"session": "s"}, "other")
    result = {"source": source, "edited": edited, "tops": tops, "plain": plain_tops}
    if "fails" in case:
        switch = Path(os.environ["LEYLINE_TEST_SWITCHES"]) / "fail"
        switch.write_text(case["fails"])
        claims[0]["end"] = claims[1]["at"] = 40
        said = {"session": "s", "base": handle, "claims": claims}
        result["failed"], result["failed_tops"] = ask(A[:40] + B + Q, said)
        _, result["failed_plain"] = ask(A[:40] + B + Q, {"session": "s"}, "other")
        switch.unlink()
        os.environ.pop("VLLM_CPU_OMP_THREADS_BIND", None)
    return result


def main() -> None:
    """Every case, in this process."""
    found = {}
    for case in json.loads(Path(sys.argv[1]).read_text()):
        found[case["name"]] = run(case)
        gc.collect()
    print("\n" + json.dumps(found), flush=True)
    os._exit(0)  # Workers are gone with their engines; what is left has nothing to say.


if __name__ == "__main__":
    main()
