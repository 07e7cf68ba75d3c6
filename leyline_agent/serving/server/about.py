"""What the server is and how it does: its model, its health."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from leyline_agent._version import __version__
from leyline_agent.directive import Mode, strongest
from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.engine import Engine
from leyline_agent.serving.kv.store import bytes_per_token
from leyline_agent.serving.server.desk import TheDesk
from leyline_agent.serving.server.inference import check_model

__all__ = ["router"]

router = APIRouter()


@router.get("/v1/models")
async def models(desk: TheDesk) -> dict[str, Any]:
    """The one model that is served."""
    return {"object": "list", "data": [_model(desk.service)]}


@router.get("/v1/models/{name:path}")
async def model(name: str, desk: TheDesk) -> dict[str, Any]:
    """The model, by its name."""
    check_model(desk, name)
    return _model(desk.service)


@router.get("/health")
async def health(desk: TheDesk) -> dict[str, Any]:
    """Whether the server answers, and what its pool holds. Never waits for the engine."""
    service = desk.service
    lock = service.engine.lock
    idle = lock.acquire(blocking=False)
    if idle:
        try:
            desk.tree_tokens = _engine(service).forest.num_tokens
        finally:
            lock.release()
    return {
        "status": "ok",
        "version": __version__,
        "model": service.name,
        "busy": not idle,
        "in_flight": desk.in_flight,
        "running": service.scheduler.num_running,
        "waiting": service.scheduler.num_waiting,
        "sessions": len(service.sessions),
        "pool": _pool(_engine(service)),
        "tree_tokens": desk.tree_tokens,
    }


def _engine(service: ChatService) -> Engine:
    """What a server serves is the bundled engine."""
    assert isinstance(service.engine, Engine)
    return service.engine


def _model(service: ChatService) -> dict[str, Any]:
    engine = _engine(service)
    facts, config = engine.facts, engine.config
    model = engine.model
    fidelity = config.rules.fidelity_floor
    return {
        "id": service.name,
        "object": "model",
        "created": 0,
        "owned_by": "leyline",
        "max_model_len": engine.max_len,
        "leyline": {
            "context_length": engine.max_len,
            "dtype": str(model.dtype).removeprefix("torch.") if model else None,
            "modes": _modes(engine),
            "mode_floor": config.rules.floor.value,
            "fidelity_floor": fidelity.value if fidelity else None,
            "repair": {k: v for k, v in asdict(config.repair).items() if isinstance(v, int)},
            "tools": "native" if service.chat.tools_native else "fallback",
            "splice": {
                "supported": facts.refusal is None,
                "reason": facts.refusal.value if facts.refusal else None,
                "detail": facts.detail,
            },
        },
    }


def _modes(engine: Engine) -> list[str]:
    """The modes an edit may be carried out in, weakest first."""
    floors = (Mode.FORGET if engine.facts.refusal else None, engine.config.rules.fidelity_floor)
    floor = strongest(engine.config.rules.floor, *floors)
    return [mode.value for mode in Mode if mode.strength >= floor.strength]


def _pool(engine: Engine) -> dict[str, int]:
    """Slots (one a token), and the bytes they take."""
    model = engine.model
    size = bytes_per_token(engine.facts.layers, model.dtype) if model else 0
    return {
        "slots": engine.pool.num_slots,
        "used": engine.pool.num_used,
        "free": engine.pool.num_free,
        "bytes": engine.pool.num_slots * size,
        "bytes_per_token": size,
    }
