package cli

import (
	"context"
	"io"

	"github.com/leasehold/leasehold/internal/envelope"
)

func transitEncryptFileCommand() *command {
	var f transitFile
	return &command{
		name: "encrypt-file", args: "[FILE | -]", min: 0, max: 1, plain: true,
		short: "Encrypt a file of any size",
		long: "Asks Transit for a data key and encrypts the file with it, here. The file that " +
			"comes out holds the data key as the key NAME has wrapped it, so that whoever may " +
			"decrypt with that key can read it. Without FILE, standard input is encrypted.\n\n" +
			"The token needs \"update\" on transit/datakey/plaintext/NAME.",
		example: []string{"leasehold transit encrypt-file -key=backups -out=dump.enc dump.sql", "tar c photos | leasehold transit encrypt-file -key=backups > photos.tar.enc"},
		flags:   f.flags("Key of Transit that protects the file."),
		run: func(ctx context.Context, c *call) error {
			if f.key == "" {
				return localf("Name a key of Transit: -key=NAME. \"leasehold list %s\" shows which there are.", f.at("keys"))
			}
			target, err := c.outTarget(f.out, f.force, 0o666)
			if err != nil {
				return err
			}
			if target.name == "" && c.terminal() {
				return localf("The encrypted file is not for a terminal: give -out=FILE, or send the output into a file or a pipe.")
			}
			in, size, done, err := c.openInput()
			if err != nil {
				return err
			}
			defer done()
			wrapped, key, err := c.askDataKey(ctx, f.at("datakey/plaintext/"+f.key), nil)
			if err != nil {
				return err
			}
			defer clear(key)
			in, shown := c.progress(in, size, "encrypting")
			defer shown()
			return c.through(ctx, "Encrypting", target, func(ctx context.Context, out io.Writer) error {
				return envelope.Seal(ctx, out, in, envelope.Header{Key: f.key, DataKey: wrapped}, key)
			})
		},
	}
}
