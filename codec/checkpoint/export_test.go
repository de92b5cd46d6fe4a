package checkpoint

import "io"

// ReadAllAfter is ReadAll for an input of which so many bytes are held already.
func ReadAllAfter(name string, r io.Reader, held int64) ([]Found, error) {
	return readAll(name, r, Options{}, &budget{held: held})
}
