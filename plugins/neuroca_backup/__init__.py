"""Backup, verification, restore and disaster recovery of the NeuroCognitive Architecture."""
