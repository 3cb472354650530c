package session2

import "github.com/session2/session2/internal/fsys"

// OpenGobStoreOn opens a store on another file system, and with another limit
// of what may be dead in the file.
func OpenGobStoreOn(fsy fsys.FS, path string, opts *GobOptions, slack int64) (*GobStore, error) {
	s, err := openGobStore(fsy, path, opts)
	if err == nil {
		s.slack = slack
	}
	return s, err
}
