"""From rows to figures: what every arm cost, and whether what was to be measured happened."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from leyline_agent.directive import Mode
from leyline_agent.receipt import Reason
from leyline_evals.replay.arms import Arm
from leyline_evals.replay.records import ArmRun, Failed, FidelityRow, TurnRow
from leyline_evals.replay.report import ArmFigures, FidelityFigures, RunSummary, Spread

__all__ = ["Results", "fidelity", "figures", "notes", "problems", "rival", "spread", "summary"]

K = TypeVar("K")

Results = Sequence[Mapping[Arm, ArmRun]]
"""The runs, each by arm. Every run was played in the same arms."""

# An engine may well have nothing to splice for these; for any other reason it should have.
_NOTHING_TO_SPLICE = {
    Reason.NO_SUFFIX,
    Reason.UNSEEN,  # What is edited before it is sent for the first time is in no cache.
    Reason.COST_GATE,
    Reason.UNDECLARED,
    Reason.BEHIND_FORGET,
    Reason.REDACTED,
}


def spread(values: Iterable[float]) -> Spread | None:
    """Percentiles by linear interpolation; None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    p25, p50, p75, p99 = (_percentile(ordered, q) for q in (0.25, 0.5, 0.75, 0.99))
    return Spread(p25=p25, p50=p50, p75=p75, p99=p99, n=len(ordered))


def _percentile(ordered: Sequence[float], q: float) -> float:
    at = q * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    value = ordered[low] + (ordered[high] - ordered[low]) * (at - low)
    return round(value, 6)  # a KL near the noise floor has few digits before that


def rival(arms: Iterable[Arm]) -> Arm | None:
    """The arm that shows what an edit costs without splicing; None where none ran."""
    ran = set(arms)
    return next((arm for arm in (Arm.PREFIX_CACHE, Arm.FORGET) if arm in ran), None)


class _Turn(dict[Arm, TurnRow]):
    """One turn in every arm."""

    @property
    def edited(self) -> bool:
        return any(row.edits for row in self.values())


def _common(results: Results) -> list[_Turn]:
    """The turns that every arm did."""
    turns: list[_Turn] = []
    for run in results:
        shortest = min(len(played.rows) for played in run.values())
        for number in range(shortest):
            turns.append(_Turn({arm: played.rows[number] for arm, played in run.items()}))
    return turns


def figures(results: Results) -> dict[Arm, ArmFigures]:
    """Every arm's figures over the turns that every arm did."""
    turns = _common(results)
    arms = list(results[0]) if results else []
    made = {arm: _arm(arm, turns, rival(arms)) for arm in arms}
    base = made.get(Arm.APPEND_ONLY)
    if base is not None and base.compute_tokens:
        for one in made.values():
            one.compute_ratio = round(one.compute_tokens / base.compute_tokens, 4)
    return made


def _arm(arm: Arm, turns: Sequence[_Turn], other: Arm | None) -> ArmFigures:
    rows = [turn[arm] for turn in turns]
    edited = [turn for turn in turns if turn.edited]
    rest = [turn for turn in turns if not turn.edited]

    def total(field: Callable[[TurnRow], int]) -> int:
        return sum(map(field, rows))

    prompt = total(lambda row: row.prompt)
    reused = total(lambda row: row.exact + row.spliced)
    return ArmFigures(
        turns=len(rows),
        prompt_tokens=prompt,
        exact_tokens=total(lambda row: row.exact),
        spliced_tokens=total(lambda row: row.spliced),
        reused_tokens=reused,
        recomputed_tokens=total(lambda row: row.recomputed),
        prefilled_tokens=total(lambda row: row.prefilled),
        compute_tokens=total(lambda row: row.compute),
        hit_rate=round(reused / prompt, 4) if prompt else 0.0,
        edits=total(lambda row: row.edits),
        turns_with_edits=total(lambda row: bool(row.edits)),
        reasons=_summed(row.reasons for row in rows),
        modes=_summed(row.modes for row in rows),
        ttft_ms=spread(_ttft(rows)),
        ttft_after_edit_ms=spread(_ttft(turn[arm] for turn in edited)),
        sooner=_sooner(arm, other, edited),
        sooner_without_edit=_sooner(arm, other, rest),
        splice_us=spread(row.splice_us for row in rows if row.modes),
        copy_us=spread(row.copy_us for row in rows if row.copy_us),
        session_ms=spread(row.session_ms for row in rows),
    )


def _ttft(rows: Iterable[TurnRow]) -> list[float]:
    return [row.ttft_ms for row in rows if row.ttft_ms is not None]


def _sooner(arm: Arm, other: Arm | None, turns: Sequence[_Turn]) -> Spread | None:
    """How many times sooner than the rival the first token came, turn by turn."""
    if other is None or arm is other:
        return None
    pairs = [(turn[other].ttft_ms, turn[arm].ttft_ms) for turn in turns]
    return spread(theirs / ours for theirs, ours in pairs if theirs and ours)


def _summed(counts: Iterable[Mapping[K, int]]) -> dict[K, int]:
    total: Counter[K] = Counter()
    for one in counts:
        total.update(one)
    return dict(total)


def fidelity(results: Results) -> dict[str, FidelityFigures] | None:
    """Nearness to honest re-prefill, by arm and for the two controls; None where not measured."""
    rows: dict[str, list[FidelityRow]] = {}
    for run in results:
        for arm, played in run.items():
            if played.fidelity:
                rows.setdefault(arm.value, []).extend(played.fidelity)
    if not rows:
        return None
    # The controls were measured once a turn and are told by every arm.
    known = {
        (id(run), row.turn): row for run in results for p in run.values() for row in p.fidelity
    }
    once = list(known.values())
    found = {name: _near([(r.tokens, r.kl, r.top1) for r in some]) for name, some in rows.items()}
    found["noise_floor"] = _near([(r.tokens, r.floor_kl, r.floor_top1) for r in once])
    undone = [(r.tokens, r.unedited_kl, r.unedited_top1) for r in once]
    whole = [(n, kl, top1) for n, kl, top1 in undone if kl is not None and top1 is not None]
    if whole:
        found["edit_undone"] = _near(whole)
    return found


def _near(rows: Sequence[tuple[int, float, float]]) -> FidelityFigures:
    tokens = sum(n for n, _, _ in rows)
    kls = [kl for _, kl, _ in rows]
    lie = spread(kls)
    assert lie is not None
    return FidelityFigures(
        turns=len(rows),
        tokens=tokens,
        kl=lie,
        kl_mean=statistics.fmean(kls),
        kl_max=max(kls),
        top1=round(sum(n * top1 for n, _, top1 in rows) / tokens, 4),
    )


def summary(run: Mapping[Arm, ArmRun]) -> RunSummary:
    """One run, and how far each arm came."""
    first = next(iter(run.values()))
    return RunSummary(
        file=first.file,
        id=first.id,
        format=first.format,
        messages=first.messages,
        turns=first.turns,
        turns_done={arm: len(played.rows) for arm, played in run.items()},
        ended={arm: played.ended for arm, played in run.items() if played.ended},
    )


def problems(results: Results, made: Mapping[Arm, ArmFigures]) -> list[str]:
    """Policies that failed, and arms that did not do what their name says.

    The figures of either measure something else than what was asked for.
    """
    return [*_failures(results), *_spliced_nothing(made)]


def _failures(results: Results) -> list[str]:
    """Each policy that raised, in how many turns, and what; the arm counts that had it oftenest."""
    turns: Counter[str] = Counter()
    errors: dict[str, Counter[str]] = {}
    for run in results:
        worst: dict[str, Failed] = {}
        for failed in (one for played in run.values() for one in played.failed):
            if failed.policy not in worst or worst[failed.policy].turns < failed.turns:
                worst[failed.policy] = failed
        for policy, failed in worst.items():
            turns[policy] += failed.turns
            errors.setdefault(policy, Counter())[failed.error] += failed.turns
    whole = sum(max(len(played.rows) for played in run.values()) for run in results)
    return [
        f"the policy {policy} failed in {count} of {whole} turns: "
        f"{errors[policy].most_common(1)[0][0]}"
        for policy, count in turns.items()
    ]


def _spliced_nothing(made: Mapping[Arm, ArmFigures]) -> list[str]:
    return [
        f"{arm.value} spliced nothing although its {one.edits} edits were to be spliced "
        f"({_told(one.reasons)}): its figures are not those of splicing"
        for arm, one in made.items()
        if arm.splices and not one.spliced_tokens and set(one.reasons) - _excuses(one)
    ]


def _excuses(one: ArmFigures) -> set[Reason]:
    """Reasons for which there is nothing to splice, among them that the policy forgets."""
    asked = {Reason.ASKED} if set(one.modes) == {Mode.FORGET} else set()
    return asked | _NOTHING_TO_SPLICE


def _told(reasons: Mapping[Reason, int]) -> str:
    return ", ".join(f"{reason.value} {count}" for reason, count in reasons.items())


def notes(results: Results, made: Mapping[Arm, ArmFigures]) -> list[str]:
    """What a reader should know of the figures."""
    found: list[str] = []
    policed = [one for arm, one in made.items() if arm.edits]
    failed = any(played.failed for run in results for played in run.values())
    if policed and not failed and not any(one.edits for one in policed):
        found.append("the policy edited nothing in these runs")
    short: Counter[tuple[Arm, str]] = Counter()
    for run in results:
        short.update((arm, p.ended.kind) for arm, p in run.items() if p.ended)
    for (arm, kind), count in sorted(short.items()):
        why = "outgrew the model's context" if kind == "ContextOverflow" else f"ended with {kind}"
        found.append(f"{arm.value}: {count} of {len(results)} runs {why}")
    common = sum(min(len(p.rows) for p in run.values()) for run in results)
    whole = sum(next(iter(run.values())).turns for run in results)
    if common < whole:
        found.append(f"the figures are of the {common} turns that every arm did, of {whole}")
    return found
