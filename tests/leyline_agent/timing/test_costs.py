"""What edits cost, as receipts tell it."""

from leyline_agent import Mode
from leyline_agent.adapter import Capabilities
from leyline_agent.receipt import EditReceipt, Reason, Receipt
from leyline_agent.timing.costs import OPENAI, learned

ENGINE = Capabilities(modes=frozenset(Mode), edit_ahead=True)


def receipt(recomputed=0, ttft_ms=None, prefilled=0, **edit):
    edits = (EditReceipt(**edit),) if edit else ()
    prompt = recomputed + prefilled
    return Receipt(
        prompt=prompt,
        recomputed=recomputed,
        prefilled=prefilled,
        appended=prompt,
        edits=edits,
        ttft_ms=ttft_ms,
    )


def test_before_the_first_receipt_there_are_the_capabilities():
    costs = learned([], ENGINE, OPENAI)
    assert (costs.splices, costs.edits_ahead, costs.tokens_per_s) == (True, True, None)
    assert not learned([], Capabilities(modes=frozenset({Mode.FORGET})), OPENAI).splices
    assert not learned([], Capabilities(), OPENAI).splices


def test_speed_and_repairs_are_learned():
    told = [
        receipt(ttft_ms=100.0, prefilled=300),
        receipt(ttft_ms=100.0, recomputed=100, mode_used=Mode.REPAIR),
        receipt(prefilled=50),
    ]
    costs = learned(told, ENGINE, OPENAI, queue=3)
    assert costs.tokens_per_s == 2000
    assert costs.repaired == 100
    assert costs.queue == 3


def test_an_engine_that_has_refused_to_splice_is_a_prefix_cache():
    refused = receipt(prefilled=9, mode_used=Mode.FORGET, reason=Reason.ROPE_KIND)
    assert not learned([refused], ENGINE, OPENAI).splices


def test_old_receipts_are_forgotten():
    old = receipt(ttft_ms=1.0, prefilled=1000)
    new = [receipt(ttft_ms=1000.0, prefilled=1000)] * 40
    assert learned([old, *new], ENGINE, OPENAI).tokens_per_s == 1000
