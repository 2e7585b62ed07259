#!/usr/bin/env python3
"""A job in Python that logs in with approle, by hvac.

It keeps its state in KV, takes a database login for its work, and gives login
and token back when it is done, rather than leaving them to expire.

    app.py ROLE_ID SECRET_ID_FILE 127.0.0.1:5432/shop

Needs hvac and psycopg2 (Debian: python3-hvac python3-psycopg2).
"""

import os
import sys

import hvac
import psycopg2


def main(role_id, secret_id_file, db):
    client = hvac.Client(url=os.environ["VAULT_ADDR"], verify=os.environ.get("VAULT_CACERT", True))
    with open(secret_id_file) as file:
        client.auth.approle.login(role_id=role_id, secret_id=file.read().strip())
    me = client.auth.token.lookup_self()["data"]
    print("logged in as", me["display_name"], "with", ", ".join(me["policies"]))

    # A counter in KV. cas makes a second job that runs at the same time fail
    # rather than count the same run.
    try:
        state = client.secrets.kv.v2.read_secret_version(path="job")["data"]
        runs, version = state["data"]["runs"], state["metadata"]["version"]
    except hvac.exceptions.InvalidPath:
        runs, version = 0, 0
    client.secrets.kv.v2.create_or_update_secret(path="job", secret={"runs": runs + 1}, cas=version)
    print("run", runs + 1)

    login = client.secrets.database.generate_credentials("reader")
    try:
        client.sys.renew_lease(login["lease_id"], increment=600)
        address, name = db.split("/")
        host, port = address.rsplit(":", 1)
        user, password = login["data"]["username"], login["data"]["password"]
        with psycopg2.connect(host=host, port=port, dbname=name, user=user, password=password) as connection:
            with connection.cursor() as cursor:
                cursor.execute("SELECT current_user")
                print("query as", cursor.fetchone()[0])
    finally:
        client.sys.revoke_lease(login["lease_id"])
        client.auth.token.revoke_self()
    print("gave the login back")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
