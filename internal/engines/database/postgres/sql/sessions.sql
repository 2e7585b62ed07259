-- Ends every session of these roles, and says whose there still were. By
-- number: a session outlives its role's name.
SELECT a.usesysid::pg_catalog.text, pg_catalog.bool_and(pg_catalog.pg_terminate_backend(a.pid))
  FROM pg_catalog.pg_stat_activity a
 WHERE a.usesysid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.oid[])
 GROUP BY a.usesysid
