"""What the command puts together; importing it needs the extra `proxy`."""

from leyline_adapters.proxy.app import Proxy
from leyline_adapters.proxy.engine import Engine
from leyline_adapters.proxy.run import run
from leyline_adapters.proxy.sessions import Sessions
from leyline_adapters.proxy.upstream import Upstream

__all__ = ["Engine", "Proxy", "Sessions", "Upstream", "run"]
