-- What a database may look like before Leasehold comes: data, a group role
-- that may read it, and a role that may make and end logins in that group.
CREATE TABLE orders (id int PRIMARY KEY, customer text NOT NULL, cents int NOT NULL);
INSERT INTO orders
SELECT n, 'customer ' || n % 40, 500 + n * 137 % 9000 FROM generate_series(1, 1200) AS n;

CREATE ROLE shop_reader NOLOGIN;
GRANT SELECT ON orders TO shop_reader;

GRANT shop_reader TO leasehold WITH ADMIN OPTION;
GRANT pg_signal_backend TO leasehold; -- it ends the sessions of those it revokes
