package record

// WholeGob reports whether data are as long as gob's messages in them say. A
// decoder takes the memory that a message claims, up to 10 MB, before it looks.
func WholeGob(data []byte) bool {
	for len(data) > 0 {
		n, width := uint64(data[0]), 1
		if n > 127 { // so many bytes of the length follow, as a negative number
			width = 1 + 256 - int(n)
			if width > 9 || width > len(data) {
				return false
			}
			n = 0
			for _, c := range data[1:width] {
				n = n<<8 | uint64(c)
			}
		}
		if n > uint64(len(data)-width) {
			return false
		}
		data = data[width+int(n):]
	}
	return true
}
