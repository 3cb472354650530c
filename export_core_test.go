package session2

// HoldsInfo reports whether a record holds something worth storing.
func HoldsInfo(rec Record) bool {
	st, err := decodeRecord(rec)
	return err == nil && st.hasInfo()
}
