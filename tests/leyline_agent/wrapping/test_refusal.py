import pytest

import leyline_agent as leyline
from leyline_agent.errors import CallRefused
from leyline_agent.policy import parse
from leyline_policies.pinned import Pinned
from leyline_policies.redact import Redact


def broken(message):
    raise RuntimeError("a fault")


def test_a_call_that_cannot_be_edited_is_not_made_where_a_policy_redacts():
    sent = []

    @leyline.wrap(policies=["keep_all", Pinned(policy=Redact())], pinned=broken)
    def ask(messages):
        sent.append(messages)
        return "ok"

    with pytest.raises(CallRefused, match="could not be edited .RuntimeError: a fault.*redacts"):
        ask([{"role": "user", "content": "AKIAIOSFODNN7EXAMPLE"}])
    assert sent == []


def test_redaction_is_known_through_pipelines_and_wrappers():
    policy = parse("keep_all+pinned:policy=(redact)")
    assert policy.redacts
    assert not parse("keep_all+keep_last:n=3").redacts
