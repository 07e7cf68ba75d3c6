import pytest

import leyline_agent as leyline
from leyline_agent.errors import LeylineError


@pytest.mark.parametrize(
    ("name", "value"), [("LEYLINE_LIVE", "yess"), ("LEYLINE_TELEMETRY", "otlp")]
)
def test_what_it_asks_for_and_is_not_known_is_told_where_options_are_given(
    name, value, monkeypatch
):
    monkeypatch.setenv(name, value)
    with pytest.raises(LeylineError, match=f"{name}='{value}' is not known"):
        leyline.wrap(policies="keep_all")
