{{ with secret "database/creds/reader" -}}
DB_USER={{ .Data.username }}
DB_PASSWORD={{ .Data.password }}
{{ end -}}
