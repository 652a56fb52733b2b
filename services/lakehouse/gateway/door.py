"""HTTP of a process without a gateway: is it alive, is it ready, what is it, and its figures."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import FastAPI

from lakehouse.contracts.readiness import ReadinessSource
from lakehouse.contracts.tokens import Authenticator
from lakehouse.gateway.app import Gateway
from lakehouse.gateway.metrics import Metrics
from lakehouse.gateway.routes import health
from lakehouse.gateway.settings import GatewaySettings
from lakehouse.kit.clock import Clock
from lakehouse.kit.figures import FigureSource
from lakehouse.kit.ids import Ids
from lakehouse.kit.requests import RequestLog


@dataclass(frozen=True, slots=True)
class Shown:
    """What a process shows of itself, and the log of who looked."""

    readiness: ReadinessSource
    figures: FigureSource
    log: RequestLog = RequestLog()


def create_door(
    shown: Shown, authenticator: Authenticator, settings: GatewaySettings, clock: Clock, ids: Ids
) -> FastAPI:
    """``/health``, ``/ready``, ``/version`` and ``/metrics`` as the gateway has them, with its
    limits, its tokens and its problem documents; nothing else."""
    metrics = Metrics((shown.figures,), shown.log)
    app = Gateway(authenticator, settings, clock, ids, metrics)
    app.router.routes.extend(health.routes(shown.readiness, metrics).routes)
    return app
