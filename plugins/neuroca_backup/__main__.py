"""`python -m neuroca_backup` is `neuroca-backup`."""

from __future__ import annotations

from neuroca_backup.cli import main

if __name__ == "__main__":
    main()
