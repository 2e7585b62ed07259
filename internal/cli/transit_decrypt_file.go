package cli

import (
	"context"
	"errors"
	"io"

	"github.com/leasehold/leasehold/internal/envelope"
)

func transitDecryptFileCommand() *command {
	var f transitFile
	return &command{
		name: "decrypt-file", args: "[FILE | -]", min: 0, max: 1, plain: true,
		short: "Decrypt a file that encrypt-file has made",
		long: "Has Transit unwrap the file's data key and decrypts the file with it, here. Without " +
			"FILE, standard input is decrypted. A file that was changed or cut off is refused, and " +
			"no output file is left; standard output may have had the first part of it by then, so " +
			"look at the exit code.\n\n" +
			"The token needs \"update\" on transit/decrypt/NAME.",
		example: []string{"leasehold transit decrypt-file -out=dump.sql dump.enc", "leasehold transit decrypt-file photos.tar.enc | tar x"},
		flags:   f.flags("Key of Transit, if it is called otherwise now than the file says."),
		run: func(ctx context.Context, c *call) error {
			target, err := c.outTarget(f.out, f.force, 0o600)
			if err != nil {
				return err
			}
			in, size, done, err := c.openInput()
			if err != nil {
				return err
			}
			defer done()
			if target.name != "" || !c.terminal() { // where the content is shown
				var shown func()
				in, shown = c.progress(in, size, "decrypting")
				defer shown()
			}
			sealed, err := typed(c, func() (*envelope.Sealed, error) { return envelope.Open(in) })
			if errors.Is(err, exitStatus(exitStopped)) {
				return err
			}
			if err != nil {
				return localf("Decrypting %s: %v.", c.inputName(), err)
			}
			if f.key == "" {
				f.key = sealed.Header.Key
			}
			_, key, err := c.askDataKey(ctx, f.at("decrypt/"+f.key), ciphertext{sealed.Header.DataKey})
			if err != nil {
				return err
			}
			defer clear(key)
			return c.through(ctx, "Decrypting", target, func(ctx context.Context, out io.Writer) error { return sealed.Decrypt(ctx, out, key) })
		},
	}
}

type ciphertext struct {
	Ciphertext string `json:"ciphertext"`
}
