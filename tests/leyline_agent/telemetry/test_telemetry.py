import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from leyline_agent import LeylineError, Session, telemetry

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "observability.md"
ASK = [{"role": "user", "content": "hi"}]


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip


@pytest.fixture
def enable(told):
    def enable(**options):
        return telemetry.enable(
            tracer_provider=told.tracer_provider, meter_provider=told.meter_provider, **options
        )

    yield enable
    telemetry.disable()


def test_once_enabled_every_session_is_told_of(told, enable):
    before = Session(id="before")
    enable()
    before.begin(ASK).finish("ok")
    Session(id="after").begin(ASK).finish("ok")
    telemetry.disable()
    before.begin([*ASK, *ASK]).finish("ok")
    ids = [span.attributes["gen_ai.conversation.id"] for span in told.turns]
    assert ids == ["before", "after"]


def test_a_turn_that_is_open_when_it_is_disabled_ends(told, enable):
    enable()
    turn = Session().begin(ASK)
    telemetry.disable()
    assert [span.attributes["leyline.outcome"] for span in told.turns] == ["abandoned"]
    turn.finish("ok")
    assert len(told.turns) == 1


def test_enabled_again_it_tells_of_each_turn_once(told, enable):
    enable()
    enable(provider="x_ai")
    Session().begin(ASK).finish("ok")
    assert [span.attributes["gen_ai.provider.name"] for span in told.turns] == ["x_ai"]


def test_what_the_program_enabled_stays(told, enable, monkeypatch):
    enable(provider="x_ai")
    monkeypatch.setenv("LEYLINE_TELEMETRY", "otel")
    Session().begin(ASK).finish("ok")
    assert [span.attributes["gen_ai.provider.name"] for span in told.turns] == ["x_ai"]


@pytest.mark.parametrize("named", ["", None])
def test_nothing_is_imported_before_it_is_asked_for(named):
    code = (
        "import sys, leyline_agent\n"
        "session = leyline_agent.Session()\n"
        "session.begin([{'role': 'user', 'content': 'hi'}]).finish('ok')\n"
        "print([m for m in sys.modules if m.startswith(('opentelemetry', 'rich'))\n"
        "       or 'telemetry' in m])\n"
    )
    environment = {} if named is None else {"LEYLINE_TELEMETRY": named}
    assert run(code, **environment).stdout == "[]\n"


def test_the_environment_turns_it_on():
    code = (
        "from opentelemetry import trace\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor\n"
        "provider = TracerProvider()\n"
        "provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))\n"
        "trace.set_tracer_provider(provider)\n"
        "import leyline_agent\n"
        "session = leyline_agent.Session(id='s-1')\n"
        "session.begin([{'role': 'user', 'content': 'hi'}], model='m').finish('ok')\n"
    )
    done = run(code, LEYLINE_TELEMETRY="otel")
    assert done.stderr == ""
    assert '"name": "chat m"' in done.stdout
    assert '"gen_ai.conversation.id": "s-1"' in done.stdout


def test_an_unknown_name_is_told(monkeypatch):
    monkeypatch.setenv("LEYLINE_TELEMETRY", "statsd")
    with pytest.raises(LeylineError, match="LEYLINE_TELEMETRY='statsd' is not known; use 'otel'"):
        Session()


def test_a_missing_package_is_told():
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import leyline_agent\n"
        "try: leyline_agent.Session()\n"
        "except leyline_agent.LeylineError as error: print(error)\n"
    )
    assert "pip install 'leyline-agent[otel]'" in run(code, LEYLINE_TELEMETRY="otel").stdout


@pytest.mark.parametrize(
    ("number", "printed"),
    [(0, ""), (1, '{\n    "name": "leyline.policies"'), (2, "version 1 with 0 edits\nprompt 0\n")],
)
def test_snippets_of_the_document_run(number, printed):
    source = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.M | re.S)[number]
    done = run(source)
    assert done.stderr == ""
    assert done.stdout.startswith(printed)
