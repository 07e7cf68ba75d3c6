"""Settings out of a framework's configuration and the environment."""

from __future__ import annotations

import pytest

from leyline_adapters.harnesses.configured import configured
from leyline_agent.errors import LeylineError


def test_the_configuration_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEYLINE_POLICIES", "keep_all")
    monkeypatch.setenv("LEYLINE_JOURNAL", "journals")
    monkeypatch.setenv("LEYLINE_ADAPTER", "")
    assert configured({"policies": "dedupe", "mode_floor": "forget"}, "model.leyline") == {
        "policies": "dedupe",
        "adapter": None,
        "journal": "journals",
        "mode_floor": "forget",
    }
    assert configured(None, "model.leyline")["policies"] == "keep_all"


def test_no_policies_at_all_is_an_error_that_names_the_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LEYLINE_POLICIES", raising=False)
    with pytest.raises(LeylineError, match=r"agent\.leyline\.policies, or LEYLINE_POLICIES"):
        configured({"policies": ""}, "agent.leyline")
