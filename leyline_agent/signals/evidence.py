"""What the text of a tool result says about success: statuses, errors, tracebacks, test summaries.

Each function quotes the line that says so, or answers None. Harnesses' own words are looked for
only where harnesses put them, at the very start or end, so that a file being shown cannot speak.
"""

from __future__ import annotations

import re

__all__ = [
    "body",
    "error_start",
    "exit_code",
    "malformed",
    "shell_error",
    "telling_line",
    "tests_failed",
    "timeout",
    "traceback",
]

_QUOTE_CHARS = 200
_EDGE_CHARS = 4000

# What harnesses put around an output.
_OPENINGS = re.compile(
    r"\s*(?:(?:OBSERVATION|Observation):|<observation>"
    r"|<exception>.*?</exception>|<returncode>-?\d+</returncode>|<output>"
    r"|<warning>.*?</warning>|<output_head>)\s*",
    re.DOTALL,
)
_CLOSINGS = re.compile(
    r"\s*(?:</(?:output|output_tail|observation)>|\(Open file: [^\n]*\)"
    r"|\(Current directory: [^\n]*\)|bash-\$|///PROCESS-DONE:\d+:PROCESS-DONE///"
    r"|\[[^\n]*exit code:? -?\d+\.?\]|\[(?:Python Interpreter|Current working directory): [^\n]*\]"
    r"|[\w.-]+@[\w.-]+:\S* [#$])\s*\Z"
)

_CODE_AT_START = re.compile(
    r"\s*(?:<exception>.*?</exception>\s*)?"
    r"(?:<returncode>(-?\d+)</returncode>|(?:Error: )?(?:Process exited with|Exit) code:? (-?\d+))",
    re.DOTALL | re.IGNORECASE,
)
_CODE_AT_END = re.compile(
    r"(?:\[(?:The command completed|Command finished) with exit code (-?\d+)\.?\]"
    r"|\[exit code: (-?\d+)\]|///PROCESS-DONE:(\d+):PROCESS-DONE///)[^\n]*(?:\n[^\n]*){0,4}\Z"
)

_ERROR_WORD = re.compile(r"\A\s*(?:ERROR|Error):\s*\n")
_MALFORMED = re.compile(
    r"""(?:
        (?:error|exception)\ in\ (?:code\ )?pars | error\ parsing | (?:tool\ call|format)\ error
      | your\ (?:last\ )?(?:output|response|code\ snippet|tool\ call)
        \ (?:was\ not|did\ not|is\ invalid)
      | please\ (?:always\ )?provide\ exactly\ one | no\ (?:valid\ )?tool\ call
      | (?:missing|unexpected)\ (?:required\ )?(?:argument|parameter|keyword)
      | parameter\ [`'"]?\w+[`'"]?\ is\ (?:required|expected)
      | invalid\ (?:json|tool|function|arguments?\b)
      | unknown\ (?:tool|function)\b
      | (?:tool|function)\ [`'"]?\w+[`'"]?\ (?:not\ found|does\ not\ exist)
      | (?:error:\ )?\d+\ validation\ errors?\ for
    )""",
    re.VERBOSE | re.IGNORECASE,
)
_TIMEOUT_AT_START = re.compile(
    r"\s*(?:<exception>(?:(?!</exception>).)*timed out|EXECUTION TIMED OUT|COMMAND TIMED OUT"
    r"|[^\n]{0,40}\b(?:command|execution|request)\b[^\n]{0,120}"
    r"(?:timed out|cancelled because it took))",
    re.DOTALL | re.IGNORECASE,
)
_WAITED = re.compile(r"(?:timed out|cancelled because it took)[^<\n\]]{0,60}", re.IGNORECASE)
_TIMEOUT_AT_END = re.compile(r"\[The command timed out after [^\]]*\]", re.IGNORECASE)
_ERROR_START = re.compile(
    r"""(?:
        (?:error|exception|fatal)\b[^\n:]{0,60}:
      | \w+\ failed\.\ error\ message: | command\ failed\b
      | no\ (?:replacement\ was\ performed|changes\ were\ made|file\ open)
      | (?:the\ )?(?:text|file|path)\ (?:[^\n]{1,200}\ )?
        (?:(?:was\ )?not\ found|does\ not\ exist|already\ exists|is\ too\ large)
      | multiple\ occurrences\ of | new\ string\ '[^\n]*(?:\n[^\n]*){0,400}?'\ already\ exists\ in
      | <(?:tool_use_)?error> | your\ proposed\ edit\ has\ introduced
      | invalid\ [^\n]{0,40}\b(?:path|parameter|command|range|index|number)\b
    )""",
    re.VERBOSE | re.IGNORECASE,
)
_ERROR_TAG = re.compile(r"</?(?:tool_use_)?error>")
_NOT_FOUND_IN = re.compile(r"String '.*?' not found in [^\n]*\Z", re.DOTALL)
_TRACEBACK = "Traceback (most recent call last)"
_EXCEPTION = re.compile(r"(?:[A-Za-z_]\w*\.)*(?:[A-Z]\w*|error)(?:: |:?$)")
_ALONE = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception): [^\n]*")
# How many lines of an exception's own message, or of a last word, may follow it.
_LINES_BEHIND = 6
_TESTS = re.compile(
    r"^(?:=+ (?:[^\n]*[ ,])?\d+ (?:failed|errors?)\b[^\n]*=+|FAILED \((?:failures|errors)=\d[^\n]*"
    r"|!+ (?:Interrupted|stopping)[^\n]*!+|E   \S*Error\b[^\n]*(?=\s*\Z))\s*$",
    re.MULTILINE,
)
_SHELL_ERROR = re.compile(
    r"(?:\S+: (?:line \d+: )?)?[^\n]{0,200}: (?:command not found|No such file or directory"
    r"|Permission denied|Is a directory|Not a directory|cannot execute[^\n]*)\Z"
    r"|\S+: No module named \S+|\S*python[\d.]*: can't open file [^\n]*|fatal: [^\n]*"
    r"|ERROR: [^\n]*|make: \*\*\* [^\n]*"
)
_TELLING = re.compile(
    r"error|exception|fail|not found|no such|denied|invalid|cannot", re.IGNORECASE
)


def body(content: str) -> str:
    """The output itself, without what a harness puts around it."""
    start = 0
    while (match := _OPENINGS.match(content, start)) is not None:
        start = match.end()
    end = len(content)
    while (match := _CLOSINGS.search(content, max(start, end - 400), end)) is not None:
        end = match.start()
    return content[start:end]


def exit_code(content: str) -> int | None:
    """The status a harness wrote around an output."""
    match = _CODE_AT_START.match(content[:_EDGE_CHARS])
    match = match or _CODE_AT_END.search(content[-600:])
    return int(next(filter(None, match.groups()))) if match else None


def timeout(content: str) -> str | None:
    """Where a harness says it gave up waiting."""
    match = _TIMEOUT_AT_START.match(content[:_EDGE_CHARS])
    match = match or _TIMEOUT_AT_END.search(content[-600:])
    if match is None:
        return None
    words = _WAITED.search(content, match.start())
    return _clip(words[0]) if words else _clip(match[0])


def malformed(text: str) -> str | None:
    """Where a harness, at the start of its answer, says it could not make out the call."""
    text = _ERROR_WORD.sub("", text, count=1)
    return _quote(text) if _MALFORMED.match(text) else None


def error_start(text: str) -> str | None:
    """Where a tool's answer starts by saying that it failed."""
    if _ERROR_START.match(text):
        return _quote(text)
    if text.startswith("String '") and (match := _NOT_FOUND_IN.match(text)):
        return _clip(match[0].rpartition("\n")[2])
    return None


def traceback(text: str) -> str | None:
    """The exception of a traceback that opens or closes the output, or is all of it."""
    if _TRACEBACK not in text:
        alone = _ALONE.fullmatch(text.strip())
        return _clip(alone[0]) if alone else None
    opens = text.lstrip().startswith(_TRACEBACK)
    lines = text[text.rindex(_TRACEBACK) :].rstrip().splitlines()
    for place, line in enumerate(lines[1:], start=1):
        if _EXCEPTION.match(line):
            return _clip(line) if opens or len(lines) - place <= _LINES_BEHIND else None
    cut_off = all(line[:1] in ("", " ", "\t") for line in lines[1:])
    return _TRACEBACK if opens or cut_off else None


def tests_failed(text: str) -> str | None:
    """The summary line of a test run with failures."""
    found = _TESTS.findall(text[-_EDGE_CHARS:])
    return _clip(found[-1]) if found else None


def shell_error(text: str) -> str | None:
    """A complaint of the shell or a program, where the output is little else."""
    lines = [line for line in text[-_EDGE_CHARS:].strip().splitlines() if line.strip()]
    if not lines or len(text) > _EDGE_CHARS:
        return None
    if len(lines) <= 2 and _SHELL_ERROR.fullmatch(lines[0].strip()):
        return _clip(lines[0])
    return _clip(lines[-1]) if re.match(r"ERROR: |fatal: |make: \*\*\*", lines[-1]) else None


def telling_line(text: str) -> str:
    """The line that best says what went wrong; "" for an empty output."""
    quoted = traceback(text) or tests_failed(text)
    if quoted:
        return quoted
    lines = [line for line in text[-_EDGE_CHARS:].splitlines() if line.strip()]
    telling = [line for line in lines if _TELLING.search(line)]
    return _clip((telling or lines or [""])[-1])


def _quote(text: str) -> str:
    """The first line, with the next one where the first only announces it."""
    text = _ERROR_TAG.sub("", text).strip()
    lines = [line.strip() for line in text.splitlines()[:4] if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):
        return _clip(f"{lines[0]} {lines[1]}")
    return _clip("".join(lines[:1]))


def _clip(line: str) -> str:
    return line.strip()[:_QUOTE_CHARS]
