package rawtar

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Resized returns the member's header blocks for data of another size. Only the
// size and the checksum change: in the member's own block, in the form in which
// they stand there, and in the size record of its pax header, if it has one.
func (m *Member) Resized(size int64) ([]byte, error) {
	if !m.Regular() {
		return nil, fmt.Errorf("tar: %q is no plain file", m.Name)
	}
	out := slices.Clone(m.Header)
	if err := setSize(out[m.main:][:blockSize], size); err != nil {
		return nil, err
	}
	if m.pax < 0 {
		return out, nil
	}
	head := out[m.pax:][:blockSize]
	n, err := parseNumber(fieldSize.of(head))
	if err != nil {
		return nil, err
	}
	body := out[m.pax+blockSize:][:n]
	fresh, err := resizePax(body, size)
	if err != nil {
		return nil, err
	}
	if len(fresh) != len(body) {
		if err := setSize(head, int64(len(fresh))); err != nil {
			return nil, err
		}
	}
	end := m.pax + blockSize + int((n+blockSize-1)&^(blockSize-1))
	pad := make([]byte, -len(fresh)&(blockSize-1))
	return slices.Concat(out[:m.pax+blockSize], fresh, pad, out[end:]), nil
}

var errPax = errors.New("malformed pax header")

// paxRecord reads the first record of b, "LEN KEY=VALUE\n", and returns its length.
func paxRecord(b []byte) (n int, key, value string, err error) {
	space := bytes.IndexByte(b, ' ')
	if space <= 0 || space > 20 {
		return 0, "", "", errPax
	}
	v, err := strconv.ParseUint(string(b[:space]), 10, 31)
	if err != nil || v < 5 || int(v) > len(b) || int(v) <= space+1 || b[v-1] != '\n' {
		return 0, "", "", errPax
	}
	key, value, ok := strings.Cut(string(b[space+1:v-1]), "=")
	if !ok || key == "" {
		return 0, "", "", errPax
	}
	return int(v), key, value, nil
}

// resizePax replaces the size records of a pax header's data.
func resizePax(b []byte, size int64) ([]byte, error) {
	var out []byte
	for len(b) > 0 {
		n, key, value, err := paxRecord(b)
		if err != nil {
			return nil, err
		}
		if v := strconv.FormatInt(size, 10); key == "size" && value != "" && value != v {
			out = append(out, newPaxRecord(key, v)...)
		} else {
			out = append(out, b[:n]...)
		}
		b = b[n:]
	}
	return out, nil
}

// newPaxRecord spells a record, whose length counts its own digits.
func newPaxRecord(key, value string) string {
	n := len(key) + len(value) + len(" =\n")
	total := n + len(strconv.Itoa(n))
	if with := n + len(strconv.Itoa(total)); with != total {
		total = with
	}
	return fmt.Sprintf("%d %s=%s\n", total, key, value)
}

// setSize writes a size into a header block, binary if it stood there so, and the
// checksum of the result.
func setSize(b []byte, size int64) error {
	f := fieldSize.of(b)
	if f[0]&0x80 != 0 {
		clear(f)
		f[0] = 0x80
		binary.BigEndian.PutUint64(f[4:], uint64(size))
	} else if err := setOctal(f, size); err != nil {
		return err
	}
	sum := fieldSum.of(b)
	return setOctal(sum, checksum(b, false))
}

// setOctal writes a number over the digits of a field, keeping what ends them: a
// NUL, a space, both or nothing.
func setOctal(f []byte, v int64) error {
	first := 0
	for first < len(f) && f[first] == ' ' {
		first++
	}
	end := first
	for end < len(f) && f[end] >= '0' && f[end] <= '7' {
		end++
	}
	digits := strconv.FormatInt(v, 8)
	if end-first < len(digits) { // a blank or short field: the whole but its end
		first, end = 0, len(f)-1
		f[end] = 0
	}
	if len(digits) > end-first {
		return fmt.Errorf("tar: %d does not fit a field of %d octal digits", v, end-first)
	}
	for i := first; i < end-len(digits); i++ {
		f[i] = '0'
	}
	copy(f[end-len(digits):end], digits)
	return nil
}
