package oidc

// For the fuzz targets of what is parsed by hand.
var (
	BasicAuth = basicAuth
	Loopback  = loopback
	CodeKey   = codeKey
)
