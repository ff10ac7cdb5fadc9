-- How quickly are the newest memories found?
-- requires: memory.memory_items
WITH recent AS MATERIALIZED (
    SELECT * FROM memory.memory_items ORDER BY id DESC LIMIT 100
)
SELECT 'a memory without content'
  FROM recent
 WHERE content IS NULL
 LIMIT 1;
