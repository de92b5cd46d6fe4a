package codec

import "io"

// ReadAllAfter is ReadAll for an input of which so many bytes are held already.
func ReadAllAfter(name string, r io.Reader, held int64) ([]*Checkpoint, error) {
	return readAll(name, r, Options{}, &budget{held: held})
}

// ParsePstree is parsePstree with its tasks as plain numbers: the pid, then the
// threads.
func ParsePstree(path string, b []byte) ([][]int, error) {
	tasks, err := parsePstree(path, b)
	var out [][]int
	for _, t := range tasks {
		out = append(out, append([]int{t.pid}, t.threads...))
	}
	return out, err
}

// CheckInventory is checkInventory.
var CheckInventory = checkInventory
