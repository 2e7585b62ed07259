package approle

// Metadata reads what is said of a secret id, for fuzzing.
var Metadata = metadata
