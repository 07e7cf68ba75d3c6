import pytest

from leyline_agent import Edit, EditReceipt, Mode, Reason, Receipt
from leyline_agent.accounting import calibrated, completed, total
from leyline_agent.adapter import Commit
from leyline_agent.proposal import Accepted

COMMIT = Commit(session="s", base_version=2, version=3)


def accepted(policy="p", asked=Mode.AMORTIZE, sent=Mode.REPAIR, reason=Reason.USER_FLOOR):
    return Accepted(Edit(2, 3, mode=asked, policy=policy), (), sent, reason)


def told(policy="p", used=Mode.REPAIR, reason=Reason.ASKED):
    return EditReceipt(mode_asked=Mode.REPAIR, mode_used=used, reason=reason, policy=policy)


def receipt(*edits):
    return Receipt(prompt=10, prefilled=10, appended=10, edits=edits)


def test_a_receipt_gets_the_commits_numbers():
    made = completed(receipt(), COMMIT, [])
    assert (made.session, made.base_version, made.version, made.prompt) == ("s", 2, 3, 10)


def test_no_receipt_is_told_as_such():
    assert completed(None, COMMIT, []).reason is Reason.NO_RECEIPT


@pytest.mark.parametrize("why", [Reason.EVICTED, Reason.UNKNOWN_SESSION])
@pytest.mark.parametrize("sent", [Reason.ASKED, Reason.USER_FLOOR])
def test_edits_of_a_session_that_the_engine_lost_were_prefilled(why, sent):
    lost = receipt().model_copy(update={"reason": why})
    (edit,) = completed(lost, COMMIT, [accepted(reason=sent)]).edits
    assert (edit.mode_used, edit.reason) == (Mode.FORGET, why)


def test_edits_that_an_engine_does_not_tell_of_were_made_as_sent():
    (edit,) = completed(receipt(), COMMIT, [accepted(reason=Reason.ASKED)]).edits
    assert (edit.mode_used, edit.reason) == (Mode.REPAIR, Reason.ASKED)


def test_what_the_policy_asked_for_is_told_and_why_it_was_not_sent():
    (edit,) = completed(receipt(told()), COMMIT, [accepted()]).edits
    assert (edit.mode_asked, edit.mode_used, edit.reason) == (
        Mode.AMORTIZE, Mode.REPAIR, Reason.USER_FLOOR,
    )  # fmt: skip


def test_the_engines_reason_stands():
    gated = told(used=Mode.FORGET, reason=Reason.COST_GATE)
    (edit,) = completed(receipt(gated), COMMIT, [accepted()]).edits
    assert (edit.mode_asked, edit.reason) == (Mode.AMORTIZE, Reason.COST_GATE)


def test_changes_nobody_declared_stay_between_those_somebody_did():
    undeclared = told(policy="", used=Mode.FORGET, reason=Reason.UNDECLARED)
    edits = completed(
        receipt(told("p"), undeclared, told("q")), COMMIT, [accepted("p"), accepted("q")]
    ).edits
    assert [e.reason for e in edits] == [
        Reason.USER_FLOOR, Reason.UNDECLARED, Reason.USER_FLOOR,
    ]  # fmt: skip


def test_merged_edits_are_left_as_the_engine_tells_them():
    merged = told("p+q", reason=Reason.MERGED)
    assert completed(receipt(merged), COMMIT, [accepted("p"), accepted("q")]).edits == (merged,)


def test_edits_left_out_do_not_hide_what_the_others_asked_for():
    (edit,) = completed(receipt(told()), COMMIT, [accepted(), accepted()]).edits
    assert edit.mode_asked is Mode.AMORTIZE
    mixed = [accepted(), accepted(asked=Mode.REPAIR, reason=Reason.ASKED)]
    assert completed(receipt(told()), COMMIT, mixed).edits == (told(),)


def test_an_engine_that_tells_nothing_of_edits_did_what_it_was_sent():
    plain = accepted(sent=Mode.FORGET, reason=Reason.ENGINE_CANNOT_SPLICE)
    (edit,) = completed(receipt(), COMMIT, [plain]).edits
    assert (edit.mode_used, edit.reason) == (Mode.FORGET, Reason.ENGINE_CANNOT_SPLICE)
    assert edit.policy == "p"


def test_totals():
    spliced = Receipt(
        previous=10, prompt=10, reused_exact=2, reused_spliced=3, recomputed=1, prefilled=4
    )
    stats = total([receipt(), spliced], failed=1, edits=2)
    assert (stats.turns, stats.failed, stats.edits, stats.prompt) == (2, 1, 2, 20)
    assert (stats.compute, stats.hit_rate) == (15, 0.25)
    assert total([]).hit_rate == 0.0


@pytest.mark.parametrize(
    ("chars", "tokens", "expected"),
    [(300, 100, 3.0), (300, 0, 4.0), (0, 100, 4.0), (10_000, 1, 16.0), (1, 1000, 0.5)],
)
def test_calibration_is_held_within_reason(chars, tokens, expected):
    assert calibrated(4.0, chars, tokens) == expected
