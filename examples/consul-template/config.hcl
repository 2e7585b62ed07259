# The server and the token come from VAULT_ADDR and VAULT_TOKEN.
vault {
  renew_token = true
}

template {
  source      = "database.env.tpl"
  destination = "database.env"
  perms       = "0600" # a password is in it

  # Whoever uses the file is told when it has changed:
  # exec { command = "systemctl reload app" }
}
