"""`sweagent run` under a policy: its own command line, with one processor more in the agent.

git clone https://github.com/SWE-agent/SWE-agent && pip install leyline-agent -e SWE-agent
python examples/swe_agent_run.py --agent.model.name=... --env.repo.path=... (as `sweagent run`)
"""

from __future__ import annotations

import sys

from sweagent.run.common import BasicCLI
from sweagent.run.run_single import RunSingle, RunSingleConfig

from leyline_adapters.harnesses.swe_agent import LeylineHistory

history = LeylineHistory(policies="truncate_older_than:n=2,max_chars=200")
run = RunSingle.from_config(BasicCLI(RunSingleConfig).get_config(sys.argv[1:]))
run.agent.history_processors.insert(0, history)
run.run()
session = history.leyline.sessions[-1]
print(f"{session.version} turns, {session.stats().edits} edits")
