package cli

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"regexp"
	"strings"

	"github.com/leasehold/leasehold/internal/engines/transit/primitive"
)

const importNotes = "PATH is the key's: transit/keys/NAME. KEY is the key as base64, as @FILE or, for \"-\", on " +
	"standard input. A private key is PKCS #8, in PEM or as base64 of DER; of a symmetric key it is the bytes " +
	"themselves, in base64. It is wrapped here, by RSA-OAEP and AES-KWP, for the wrapping key of the server."

func transitImportCommand() *command {
	return &command{
		name: "import", args: "PATH KEY [KEY=VALUE …]", min: 2, max: -1, plain: true,
		short:   "Bring a key along that was made elsewhere",
		long:    "Imports a key as a new one of Transit.\n\n" + importNotes + "\n\nWhat follows are parameters of the import, such as type=rsa-2048.",
		example: []string{"leasehold transit import transit/keys/mine @key.pem type=rsa-2048", "leasehold transit import transit/keys/mine @key.b64 type=aes256-gcm96"},
		run:     func(ctx context.Context, c *call) error { return c.transitImport(ctx, "import") },
	}
}

// keyPath is where a key of Transit is.
var keyPath = regexp.MustCompile(`^(.+)/keys/([^/]+)$`)

// transitImport wraps the key that is brought along and sends it.
func (c *call) transitImport(ctx context.Context, endpoint string) error {
	path := keyPath.FindStringSubmatch(cleanPath(c.arg(0)))
	if path == nil {
		return localf("%q is not the path of a key: want MOUNT/keys/NAME, for example transit/keys/mine", c.arg(0))
	}
	key, err := c.keyMaterial(c.arg(1))
	if err != nil {
		return err
	}
	defer clear(key)
	in, err := c.parseInput(c.args[2:])
	if err != nil {
		return err
	}
	var hashName string
	if raw := in.values["hash_function"]; raw != nil {
		_ = json.Unmarshal(raw, &hashName) // what is no text is none of the names below
	}
	hash, ok := primitive.HashForOAEP(strings.ToUpper(hashName))
	if !ok {
		return localf("hash_function=%s: want SHA256, SHA1, SHA224, SHA384 or SHA512", hashName)
	}
	to, err := c.wrappingKey(ctx, path[1])
	if err != nil {
		return err
	}
	wrapped, err := primitive.Wrap(to, hash, key)
	if err != nil {
		return localf("Wrapping the key: %v", err)
	}
	in.addText("ciphertext", base64.StdEncoding.EncodeToString(wrapped))
	at := joinPath(path[1], "keys", path[2], endpoint)
	if _, err := c.write(ctx, at, in); err != nil {
		return step(err, "importing the key at %s", at)
	}
	c.say("Success! Imported the key: %s", joinPath(path[1], "keys", path[2]))
	return nil
}

// keyMaterial reads a key: base64, or a private key in PEM.
func (c *call) keyMaterial(arg string) ([]byte, error) {
	text := []byte(arg)
	var err error
	switch name, isFile := strings.CutPrefix(arg, "@"); {
	case isFile:
		text, err = c.file(name)
	case arg == "-":
		text, err = c.all()
	}
	if err != nil {
		return nil, err
	}
	if strings.Contains(string(text), "-----BEGIN") {
		for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
			if strings.HasSuffix(block.Type, "ENCRYPTED PRIVATE KEY") {
				return nil, localf("The key is protected by a passphrase. Take it off first: openssl pkcs8 -in FILE -topk8 -nocrypt")
			}
			if strings.HasSuffix(block.Type, "PRIVATE KEY") {
				return block.Bytes, nil
			}
		}
		return nil, localf("There is no private key in this PEM. A public key alone is imported by: leasehold write …/import public_key=@FILE")
	}
	key, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil || len(key) == 0 {
		return nil, localf("KEY is neither base64 nor a private key in PEM. A key in a file is given as @FILE.")
	}
	return key, nil
}

// wrappingKey asks for the public key that keys are wrapped by. It is asked for
// even when the command's own request is only printed.
func (c *call) wrappingKey(ctx context.Context, mount string) (*rsa.PublicKey, error) {
	cl, err := c.realClient()
	if err != nil {
		return nil, err
	}
	s, err := cl.WithWrapTTL("").Read(ctx, mount+"/wrapping_key", nil)
	if err != nil {
		return nil, step(err, "reading the wrapping key at %s/wrapping_key", mount)
	}
	var out struct {
		PublicKey string `json:"public_key"`
	}
	if err := s.Decode(&out); err != nil {
		return nil, err
	}
	if block, _ := pem.Decode([]byte(out.PublicKey)); block != nil {
		if pub, err := x509.ParsePKIXPublicKey(block.Bytes); err == nil {
			if pub, ok := pub.(*rsa.PublicKey); ok {
				return pub, nil
			}
		}
	}
	return nil, localf("%s/wrapping_key does not hold an RSA public key in PEM.", mount)
}
