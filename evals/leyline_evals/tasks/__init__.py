"""Problems of our own making: small repositories with planted bugs, for agents to mend."""

from leyline_evals.tasks.generate import DIFFICULTIES, generate
from leyline_evals.tasks.problem import Problem

__all__ = ["DIFFICULTIES", "Problem", "generate"]
