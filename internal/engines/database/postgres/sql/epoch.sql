-- The newest epoch that marks of an instance on this server's roles carry.
SELECT coalesce(pg_catalog.max(pg_catalog.split_part(d.description, ':', 3)::numeric), 0)::pg_catalog.text
  FROM pg_catalog.pg_shdescription d
 WHERE d.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_authid'::pg_catalog.regclass
   AND d.description OPERATOR(pg_catalog.~) pg_catalog.concat('^leasehold:', ($1::pg_catalog.text[])[1], ':[0-9]{1,19}:')
