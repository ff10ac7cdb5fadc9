"""Deleting what has expired, without ever deleting the last good copy.

`planning` decides and touches nothing, `survey` reads what it decides about, `applying` carries
that out. `marks` writes tombstones and holds, `erasing` deletes one backup, `sweeping` removes what
never became a backup.
"""
