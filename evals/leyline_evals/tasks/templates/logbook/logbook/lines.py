"""Lines of a log, such as "120 WARN db retry=3 host=a1"."""

from logbook.trail import note

LEVELS = ["DEBUG", "INFO", "WARN", "ERROR"]


def fields(words):
    """The "key=value" words as a dict, numbers as int; of equal keys the last counts."""
    found = {}
    for word in words:
        key, sign, value = word.partition("=")
        if sign and key:
            found[key] = int(value) if value.lstrip("-").isdigit() else value
    return found


def read(line):
    """A record: second, level, part and fields; None when the line is none."""
    words = line.split()
    if len(words) < 3 or not words[0].isdigit() or words[1] not in LEVELS:
        note(f"no record: {line!r}")
        return None
    record = {
        "at": int(words[0]),
        "level": words[1],
        "part": words[2],
        "fields": fields(words[3:]),
    }
    note(f"record {record}")
    return record


def at_least(records, level):
    """The records of a level and of all that are worse."""
    rank = LEVELS.index(level)
    return [record for record in records if LEVELS.index(record["level"]) >= rank]
