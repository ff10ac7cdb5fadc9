"""Backup, verification, restore and disaster recovery of the NeuroCognitive Architecture."""

__version__ = "0.1.0"
