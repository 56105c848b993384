package embedded

// NotesWaited reports whether a call of Notes waits for notes that are being put.
func (l *Log) NotesWaited() bool {
	if !l.noting.TryRLock() {
		return true
	}
	l.noting.RUnlock()
	return false
}
