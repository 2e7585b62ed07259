-- Who answers, by its own identity, and what time it is there.
SELECT (SELECT system_identifier::pg_catalog.text FROM pg_catalog.pg_control_system()),
       (extract(epoch FROM pg_catalog.clock_timestamp()) OPERATOR(pg_catalog.*) 1000000)::bigint,
       pg_catalog.pg_is_in_recovery(),
       pg_catalog.current_setting('server_version_num')::int,
       u.rolsuper, u.rolcreaterole, u.rolname, pg_catalog.current_database()
  FROM pg_catalog.pg_roles u
 WHERE u.rolname OPERATOR(pg_catalog.=) session_user
