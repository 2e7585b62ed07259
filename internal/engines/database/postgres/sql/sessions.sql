-- Ends every session of these roles, and says whose there still were. By
-- number: a session outlives its role's name.
SELECT a.usesysid::text, pg_catalog.bool_and(pg_catalog.pg_terminate_backend(a.pid))
  FROM pg_catalog.pg_stat_activity a
 WHERE a.usesysid = ANY ($1::oid[])
 GROUP BY a.usesysid
