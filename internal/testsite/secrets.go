package testsite

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Secrets are what must not be found where others can look. Goroutines may share them.
type Secrets struct {
	mu        sync.Mutex
	known     map[string]bool
	spellings map[uint64][]spelling // by their first eight bytes
	first     [1 << 16]bool         // whether a spelling begins with these two
}

type spelling struct{ text, what string }

// Len returns how many secrets there are.
func (k *Secrets) Len() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.known)
}

// Token adds the secret half of a token, as text and as the bytes that it stands for.
// What is no token is ignored.
func (k *Secrets) Token(text string) {
	id, secret, ok := strings.Cut(text, ".")
	raw, err := base64.RawURLEncoding.DecodeString(secret)
	if !ok || err != nil {
		return
	}
	k.Add("the verifier of "+id, raw)
	k.Add("the verifier's text of "+id, []byte(secret))
}

// Add adds a secret of at least eight bytes, in each way that a careless program would
// spell it.
func (k *Secrets) Add(what string, secret []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.known[string(secret)] {
		return
	}
	if k.known == nil {
		k.known, k.spellings = make(map[string]bool), make(map[uint64][]spelling)
	}
	k.known[string(secret)] = true
	for how, text := range spell(secret) {
		key := binary.LittleEndian.Uint64([]byte(text))
		k.first[uint16(key)] = true
		k.spellings[key] = append(k.spellings[key], spelling{text, what + ", " + how})
	}
}

// Find returns which of the secrets are in data.
func (k *Secrets) Find(data []byte) (found []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := 0; i+8 <= len(data); i++ {
		if !k.first[uint16(data[i])|uint16(data[i+1])<<8] {
			continue
		}
		for _, s := range k.spellings[binary.LittleEndian.Uint64(data[i:])] {
			if strings.HasPrefix(string(data[i:min(len(data), i+len(s.text))]), s.text) {
				found = append(found, s.what)
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// spell returns b in all ways in which it may stand in a text. Of those that take many
// characters for a byte, the first five bytes: a stack shows ten numbers of a call.
func spell(b []byte) map[string]string {
	start := b[:5]
	all := map[string]string{
		"as it is":               string(b),
		"in hexadecimal":         hex.EncodeToString(b),
		"in capital hexadecimal": strings.ToUpper(hex.EncodeToString(b)),
		"quoted":                 strings.Trim(strconv.Quote(string(b)), `"`),
		"escaped for a URL":      url.QueryEscape(string(b)),
		"in decimal":             strings.Trim(fmt.Sprint(start), "[]"),
		"as a JSON array":        strings.ReplaceAll(strings.Trim(fmt.Sprint(start), "[]"), " ", ","),
		"in Go":                  strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", start), "[]byte{"), "}"),
		"in binary":              strings.Trim(fmt.Sprintf("%08b", start), "[]"),
		"in octal":               fmt.Sprintf(strings.Repeat(`\%03o`, len(start)), anys(start)...),
	}
	for name, enc := range map[string]*base64.Encoding{
		"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding,
	} {
		for shift := range 3 { // how it spells b depends on what stands before it
			text := enc.EncodeToString(append(make([]byte, shift), b...))
			all[fmt.Sprintf("in %s, shifted by %d", name, shift)] = text[(8*shift+5)/6 : (8*(shift+len(b)))/6]
		}
	}
	return all
}

func anys(b []byte) (list []any) {
	for _, c := range b {
		list = append(list, c)
	}
	return list
}
