"""From edits to a report's figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from leyline_evals.fidelity.cases import Kind, Order
from leyline_evals.fidelity.records import ArmRow, EditRow
from leyline_evals.fidelity.report import ArmFigures, Comparison, ProbeFigures
from leyline_evals.fidelity.statistics import difference, holm, interval

__all__ = ["arms", "comparisons", "controls", "main_rows", "probes", "skipped"]

_CONTROLS = ("noise", "unedited")


def main_rows(rows: Iterable[EditRow]) -> list[EditRow]:
    """Measured edits of recorded runs; the generated ones where there are no others."""
    measured = [row for row in rows if not row.skipped]
    return [row for row in measured if row.kind.recorded] or measured


def skipped(rows: Iterable[EditRow]) -> dict[str, int]:
    """Edits that could not be measured, by why."""
    return dict(Counter(row.skipped for row in rows if row.skipped))


def controls(rows: Sequence[EditRow]) -> dict[str, ArmFigures]:
    """The figures of what arms are compared with."""
    return {name: _figures(rows, [row.controls[name] for row in rows]) for name in _CONTROLS}


def arms(rows: Sequence[EditRow]) -> dict[Order, dict[str, ArmFigures]]:
    """The figures of every arm in every order."""
    found: dict[Order, dict[str, ArmFigures]] = {}
    for order in rows[0].arms if rows else ():
        kept = sum(row.suffix[order] for row in rows)
        found[order] = {
            name: _figures(rows, [row.arms[order][name] for row in rows], kept)
            for name in rows[0].arms[order]
        }
    return found


def _figures(rows: Sequence[EditRow], own: Sequence[ArmRow], kept: int = 0) -> ArmFigures:
    kls = [one.kl for one in own]
    mean = interval(kls, [row.cluster for row in rows])
    calls = [one.same_call for one in own if one.same_call is not None]
    recomputed = sum(one.recomputed for one in own)
    return ArmFigures(
        edits=len(own),
        kl_mean=mean.mean,
        kl_low=mean.low,
        kl_high=mean.high,
        kl_median=float(np.median(kls)),
        kl_p95=float(np.quantile(kls, 0.95)),
        kl_worst=max(kls),
        top1=sum(one.top1 for one in own) / len(own),
        recomputed=recomputed / len(own),
        share=recomputed / kept if kept else 0.0,
        calls=len(calls),
        same_call=sum(calls) / len(calls) if calls else None,
    )


def probes(rows: Iterable[EditRow]) -> dict[str, ProbeFigures]:
    """What each arm answers to the generated questions, where the edit comes first."""
    asked = [row for row in rows if not row.kind.recorded and not row.skipped]
    if not asked:
        return {}
    answers = [{**row.controls, **row.arms.get(Order.EDIT_FIRST, {})} for row in asked]
    return {name: _probe(name, asked, answers) for name in answers[0]}


def _probe(
    name: str, rows: Sequence[EditRow], answers: Sequence[Mapping[str, ArmRow]]
) -> ProbeFigures:
    by_kind: dict[Kind, list[Mapping[str, ArmRow]]] = {}
    for row, answer in zip(rows, answers, strict=True):
        by_kind.setdefault(row.kind, []).append(answer)
    right = [bool(one[name].right) for one in by_kind.get(Kind.COPY, [])]
    stale = [_gained(one, name, "old") for one in by_kind.get(Kind.STALE, [])]
    olds = [one[name].said["old"] > one[name].said["new"] for one in by_kind.get(Kind.STALE, [])]
    secret = [_gained(one, name, "secret") for one in by_kind.get(Kind.SECRET, [])]
    return ProbeFigures(
        copies=len(right),
        copied=_mean(right),
        stale=len(stale),
        stale_nats=_mean(stale),
        prefers_old=_mean(olds),
        secrets=len(secret),
        secret_nats=_mean(secret),
        secret_worst=max(secret, default=None),
    )


def _gained(answer: Mapping[str, ArmRow], name: str, what: str) -> float:
    """Nats by which `what` is likelier than the control number, beyond what honest makes of it."""
    here, honest = (answer[which].said for which in (name, "honest"))
    return (here[what] - here["control"]) - (honest[what] - honest["control"])


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def comparisons(
    rows: Sequence[EditRow], pairs: Sequence[tuple[str, str]], order: Order
) -> list[Comparison]:
    """Registered comparisons; the first is the primary one, the others are adjusted."""
    if not rows:
        return []
    clusters = [row.cluster for row in rows]
    found = []
    for left, right in pairs:
        ours, theirs = ([row.arms[order][name].kl for row in rows] for name in (left, right))
        found.append(difference(ours, theirs, clusters))
    adjusted = [found[0].p, *holm([one.p for one in found[1:]])]
    return [
        Comparison(
            left=left,
            right=right,
            primary=not number,
            order=order,
            edits=len(rows),
            clusters=len(set(clusters)),
            difference=one.mean,
            low=one.low,
            high=one.high,
            p=one.p,
            p_holm=p_holm,
            nearer=one.smaller,
        )
        for number, ((left, right), one, p_holm) in enumerate(
            zip(pairs, found, adjusted, strict=True)
        )
    ]
