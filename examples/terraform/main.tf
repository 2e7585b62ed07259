# A server as code: where secrets are, who may read them, and how an
# application logs in. The server and an operator's token come from VAULT_ADDR
# and VAULT_TOKEN.
terraform {
  required_providers {
    vault = { source = "hashicorp/vault" }
  }
}

variable "database" {
  description = "host:port/database that logins are made in"
  default     = "127.0.0.1:5432/shop"
}

variable "manager" {
  description = "user of the database that makes the logins"
  default     = "leasehold"
}

variable "manager_password" {
  sensitive = true # it stands in Terraform's state all the same: rotate it afterwards
}

resource "vault_mount" "secret" {
  path        = "config"
  type        = "kv"
  options     = { version = "2" }
  description = "Settings of applications"
}

resource "vault_generic_secret" "app" {
  path      = "${vault_mount.secret.path}/app"
  data_json = jsonencode({ color = "green" })
}

resource "vault_mount" "database" {
  path                      = "database"
  type                      = "database"
  default_lease_ttl_seconds = 3600
}

resource "vault_database_secret_backend_connection" "shop" {
  backend       = vault_mount.database.path
  name          = "shop"
  allowed_roles = ["reader"]
  data          = { username = var.manager, password = var.manager_password }

  postgresql {
    connection_url = "postgresql://{{username}}:{{password}}@${var.database}?sslmode=prefer"
  }
}

resource "vault_database_secret_backend_role" "reader" {
  backend     = vault_mount.database.path
  name        = "reader"
  db_name     = vault_database_secret_backend_connection.shop.name
  default_ttl = 600
  max_ttl     = 86400

  # A list of statements in later versions of the provider: [ ... ].
  creation_statements = <<-SQL
    CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'; GRANT pg_read_all_data TO "{{name}}";
  SQL
}

data "vault_policy_document" "app" {
  rule {
    path         = "${vault_mount.secret.path}/data/app"
    capabilities = ["read"]
  }
  rule {
    path         = "${vault_mount.database.path}/creds/${vault_database_secret_backend_role.reader.name}"
    capabilities = ["read"]
    description  = "logins for the shop's database"
  }
}

resource "vault_policy" "app" {
  name   = "app"
  policy = data.vault_policy_document.app.hcl
}

resource "vault_auth_backend" "approle" {
  type = "approle"
}

# Any path can be written like this. Later versions of the provider have
# vault_approle_auth_backend_role for this one; that of 1.9.0 is for servers
# before Vault 1.2.
resource "vault_generic_endpoint" "app" {
  path                 = "auth/${vault_auth_backend.approle.path}/role/app"
  ignore_absent_fields = true
  data_json            = jsonencode({ token_policies = [vault_policy.app.name], token_ttl = 1200 })
}

data "vault_approle_auth_backend_role_id" "app" {
  backend    = vault_auth_backend.approle.path
  role_name  = "app"
  depends_on = [vault_generic_endpoint.app]
}

output "role_id" {
  value = data.vault_approle_auth_backend_role_id.app.role_id
}
