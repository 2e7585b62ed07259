-- The newest epoch that marks of an instance on this server's roles carry.
SELECT coalesce(pg_catalog.max(pg_catalog.split_part(d.description, ':', 3)::numeric), 0)::text
  FROM pg_catalog.pg_shdescription d
 WHERE d.classoid = 'pg_catalog.pg_authid'::pg_catalog.regclass::oid
   AND d.description ~ ('^leasehold:' || ($1::text[])[1] || ':[0-9]{1,19}:')
