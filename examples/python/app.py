#!/usr/bin/env python3
"""A service that lives on database logins that expire.

It renews the lease, and when that cannot be extended any further it fetches a
new login and reconnects, before the old one ends.

    app.py database/creds/reader 127.0.0.1:5432/shop

Needs psycopg2 (Debian: python3-psycopg2) and nothing else.
"""

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request

import psycopg2

TRUST = ssl.create_default_context(cafile=os.environ.get("VAULT_CACERT"))


def call(method, path, body=None):
    """Sends one request to the server and returns the answer's envelope."""
    request = urllib.request.Request(
        os.environ["VAULT_ADDR"] + "/v1/" + path,
        method=method,
        data=json.dumps(body).encode() if body is not None else None,
        headers={"X-Vault-Token": os.environ["VAULT_TOKEN"]},
    )
    with urllib.request.urlopen(request, timeout=30, context=TRUST) as answer:
        return json.load(answer)


class Login:
    """A database login and its lease."""

    def __init__(self, path, db):
        secret = call("GET", path)
        self.lease, self.ttl = secret["lease_id"], secret["lease_duration"]
        self.renewable = secret["renewable"]
        self.ends = time.monotonic() + self.ttl
        user, password = secret["data"]["username"], secret["data"]["password"]
        address, name = db.split("/")
        host, port = address.rsplit(":", 1)
        print(f"new login {user} for {self.ttl}s", flush=True)
        self.connection = psycopg2.connect(host=host, port=port, dbname=name, user=user, password=password)
        self.connection.autocommit = True

    def due(self):
        """Whether two thirds of the time are over."""
        return self.ends - time.monotonic() < self.ttl / 3

    def renew(self):
        """Asks for the full time again; near its maximum the lease grows no more."""
        answer = call("PUT", "sys/leases/renew", {"lease_id": self.lease, "increment": self.ttl})
        self.renewable = answer["lease_duration"] >= self.ttl * 0.9
        self.ends = time.monotonic() + answer["lease_duration"]
        print(f"renewed for {answer['lease_duration']}s", flush=True)

    def query(self):
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT current_user")
            return cursor.fetchone()[0]


def main(path, db):
    login = Login(path, db)
    while True:
        try:
            if login.due() and login.renewable:
                login.renew()
            if login.due():
                print("replacing the login", flush=True)
                old, login = login, Login(path, db)
                old.connection.close()
            print("query as", login.query(), flush=True)
        except urllib.error.HTTPError as error:
            print("refused:", error, flush=True)
            login.renewable = False  # the lease was revoked: fetch another login
        except OSError as error:
            print("no answer, trying again:", error, flush=True)  # the login works meanwhile
        except psycopg2.OperationalError as error:
            print("reconnecting:", str(error).strip().splitlines()[0], flush=True)
            login.ends = 0  # the session was ended, with the login or without
            login.renewable = False
        time.sleep(min(1, login.ttl / 10))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        main(sys.argv[1], sys.argv[2])
    except KeyboardInterrupt:
        pass
