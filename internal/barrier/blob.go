package barrier

// blobKey stands in for a row's key in the associated data of blobs: no row
// has it, so that neither passes for the other.
const blobKey = SealedPrefix + "blob"

// SealBlob encrypts what the caller keeps itself, such as a batch token, under
// the keyring.
func (b *Barrier) SealBlob(plain []byte) ([]byte, error) {
	o := opener{b: b}
	return o.seal(make([]byte, 0, len(plain)+Overhead), blobKey, plain)
}

// OpenBlob gives back what SealBlob of this store encrypted, in this or an
// earlier process, and fails for anything else.
func (b *Barrier) OpenBlob(sealed []byte) ([]byte, error) {
	o := opener{b: b}
	return o.open(nil, blobKey, sealed)
}
