package session2

import "github.com/session2/session2/internal/fsys"

// OpenFileStoreFS is OpenFileStore on a file system of the test's.
func OpenFileStoreFS(fs fsys.FS, dir string, opts *FileOptions) (*FileStore, error) {
	return openFileStore(fs, dir, opts)
}
