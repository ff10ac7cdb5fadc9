-- Bounds every statement of this transaction: a catalog that hangs must not hang a backup.
SELECT set_config('statement_timeout', '120s', true), set_config('lock_timeout', '60s', true);
