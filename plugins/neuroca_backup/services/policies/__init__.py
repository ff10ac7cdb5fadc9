"""Least privilege: policies of AWS and grants of databases, as documents made from backup.yaml.

Everything here is pure: the same settings give the same bytes, and nothing is ever applied.
"""

from __future__ import annotations
