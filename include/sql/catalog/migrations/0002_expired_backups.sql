-- Which backups are to be deleted, so that the index does not offer what nothing chooses any more.
ALTER TABLE neuroca_backup.backups ADD COLUMN expired_at timestamptz;
COMMENT ON COLUMN neuroca_backup.backups.expired_at IS
    'When retention marked it to be deleted; it can be taken back until its objects are gone';
