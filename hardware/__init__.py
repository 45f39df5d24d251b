"""What a neural-graphics cluster beside a GPU would do with a scene of this engine: traces of real
renders, a cluster described in YAML, an analytic and a cycle-level model, energy and area, reports.
Names load on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lumigraph.hardware.claims import Claim, claims, published
    from lumigraph.hardware.cluster import ClusterSpec
    from lumigraph.hardware.workloads import Encoding, Network, Workload, workload

_MODULE_OF = {
    "Claim": "claims",
    "ClusterSpec": "cluster",
    "Encoding": "workloads",
    "Network": "workloads",
    "Workload": "workloads",
    "claims": "claims",
    "published": "claims",
    "workload": "workloads",
}

__all__ = [
    "Claim",
    "ClusterSpec",
    "Encoding",
    "Network",
    "Workload",
    "claims",
    "published",
    "workload",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
