"""Alerts: what in a log somebody should look at."""

from logbook.counts import by, errors_share, quantile, top
from logbook.lines import at_least, read
from logbook.trail import note
from logbook.windows import buckets, longest_run, moving


def slow(records, limit):
    """Parts whose 90 % quantile of "ms" is above a limit, by name."""
    found = []
    for part in sorted({record["part"] for record in records}):
        times = [
            record["fields"]["ms"]
            for record in records
            if record["part"] == part and "ms" in record["fields"]
        ]
        if times and quantile(times, 90) > limit:
            found.append(part)
        note(f"{part}: {times}, slow {found}")
    return found


def storms(records, width, limit):
    """For how many windows in a row the smoothed number of warnings was above a limit."""
    points = [(record["at"], 1) for record in at_least(records, "WARN")]
    return longest_run(moving(buckets(points, width), 2), limit)


def digest(text, limit=100, width=60):
    """What to tell about a log: a dict of figures."""
    records = [record for record in map(read, text.splitlines()) if record is not None]
    records = sorted(records, key=lambda record: record["at"])
    told = {
        "records": len(records),
        "errors": errors_share(records),
        "noisy": top(by(at_least(records, "WARN"), "part"), 2),
        "slow": slow(records, limit),
        "storm": storms(records, width, 1),
    }
    note(f"digest {told}")
    return told
