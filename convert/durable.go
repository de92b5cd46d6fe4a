package convert

import (
	"errors"
	"os"
	"sync"
)

// unsynced are the files and directories that a conversion has made. Few are made durable
// one by one: to do so with all of the file system would wait for what others have
// written to it. Many are not, since each waits for the disk.
type unsynced struct {
	files []*os.File
	many  bool
}

// few is how many files and directories are made durable one by one. Beyond it fsync of each
// takes longer than syncfs where nobody else writes.
const few = 32

// add takes over a file that is complete, or a directory whose entries are there.
func (u *unsynced) add(f *os.File) error {
	u.files = append(u.files, f)
	if u.many = u.many || len(u.files) > few; u.many {
		return u.close()
	}
	return nil
}

// sync makes all of it durable, and dir, in which it lies.
func (u *unsynced) sync(dir *os.File) error {
	if u.many {
		return syncTree(dir)
	}
	// All at once: a journal commits them together, and the disk is flushed once or twice.
	all := append(u.files, dir)
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, f := range all {
		wg.Go(func() { errs[i] = f.Sync() })
	}
	wg.Wait()
	return errors.Join(append(errs, u.close())...)
}

func (u *unsynced) close() error {
	var errs []error
	for _, f := range u.files {
		errs = append(errs, f.Close())
	}
	u.files = nil
	return errors.Join(errs...)
}
