-- In which databases these roles own or were granted anything. pg_shdepend is
-- shared: one question is enough for the whole server. What is shared itself
-- (databases, tablespaces) is dealt with from our own database.
SELECT DISTINCT d.refobjid::pg_catalog.text, coalesce(db.datname, pg_catalog.current_database())
  FROM pg_catalog.pg_shdepend d
  LEFT JOIN pg_catalog.pg_database db ON db.oid OPERATOR(pg_catalog.=) d.dbid
 WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_authid'::pg_catalog.regclass
   AND d.refobjid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.oid[])
