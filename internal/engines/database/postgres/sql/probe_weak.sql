-- The same where pg_control_system may not be asked: the numbers that this
-- server gave our database and our user. A replica has the same ones.
SELECT pg_catalog.concat('weak-', d.oid, '-', u.oid),
       (extract(epoch FROM pg_catalog.clock_timestamp()) OPERATOR(pg_catalog.*) 1000000)::bigint,
       pg_catalog.pg_is_in_recovery(),
       pg_catalog.current_setting('server_version_num')::int,
       u.rolsuper, u.rolcreaterole, u.rolname, pg_catalog.current_database()
  FROM pg_catalog.pg_roles u, pg_catalog.pg_database d
 WHERE u.rolname OPERATOR(pg_catalog.=) session_user AND d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
