"""A moment for manifests whose moment does not matter."""

from __future__ import annotations

MOMENT = {"time": "2026-11-23T02:00:00+00:00"}
