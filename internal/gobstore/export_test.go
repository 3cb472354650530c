package gobstore

// HeaderSize is the length of a file that holds nothing.
const HeaderSize = headerSize

// SetSlack sets how many dead bytes in the file do not matter.
func (s *Store) SetSlack(n int64) { s.slack = n }
