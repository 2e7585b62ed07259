-- Which of these roles exist, and whose marks they carry.
SELECT r.rolname, r.oid::pg_catalog.text, coalesce(pg_catalog.shobj_description(r.oid, 'pg_authid'), ''), r.rolcanlogin
  FROM pg_catalog.pg_roles r
 WHERE r.rolname OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.name[])
