package disk

// ForceSyncFS decides whether s uses syncfs.
func (s *Syncer) ForceSyncFS(whole bool) { s.whole = whole }
