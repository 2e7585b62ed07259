package core

// SealConfig says how the root key is kept.
type SealConfig struct{}

type sealState struct{}
