"""Kafka to a Delta Lake bronze table: every record exactly once in bronze or in the DLQ.

The public API. Names are imported on first use, so that executors, which import ``bronze.tasks``, load only the modules
that they need.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bronze.config import AuditConfig as AuditConfig
    from bronze.config import BackfillConfig as BackfillConfig
    from bronze.config import IngestConfig as IngestConfig
    from bronze.config import InspectConfig as InspectConfig
    from bronze.config import MaintainConfig as MaintainConfig
    from bronze.config import ReplayConfig as ReplayConfig
    from bronze.config import StatusConfig as StatusConfig
    from bronze.errors import BronzeError as BronzeError
    from bronze.notebook.cells import read_result as read_result
    from bronze.ops.audit import audit as audit
    from bronze.ops.backfill import backfill as backfill
    from bronze.ops.backfill import plan_backfill as plan_backfill
    from bronze.ops.maintain import maintain as maintain
    from bronze.ops.replay import replay as replay
    from bronze.ops.status import status as status
    from bronze.pipeline import Pipeline as Pipeline
    from bronze.runtime.session import get_session as get_session
    from bronze.stream import ingest as ingest

_MODULES = {
    "config": "AuditConfig BackfillConfig IngestConfig InspectConfig MaintainConfig ReplayConfig StatusConfig",
    "errors": "BronzeError",
    "notebook.cells": "read_result",
    "ops.audit": "audit",
    "ops.backfill": "backfill plan_backfill",
    "ops.maintain": "maintain",
    "ops.replay": "replay",
    "ops.status": "status",
    "pipeline": "Pipeline",
    "runtime.session": "get_session",
    "stream": "ingest",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
