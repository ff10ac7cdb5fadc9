"""Restore tests: the newest backups restored into a sandbox, looked at, sanitised, and recorded.

`choosing` says what is tested, `testing` has the steps of one source, `recording` keeps the result.
"""
