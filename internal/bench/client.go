package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
)

// client makes one request after the other.
type client interface {
	get(cookie string) error // "" is no cookie
	cookie() string          // that the latest answer set
	close() error
}

// inProcess calls a handler, each time with a request and a recorder of their own, as
// net/http makes them.
type inProcess struct {
	h    http.Handler
	sent http.Request
	got  *httptest.ResponseRecorder
}

func newInProcess(h http.Handler) *inProcess {
	return &inProcess{h: h, sent: http.Request{
		Method: "GET", URL: &url.URL{Path: "/"}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Body: http.NoBody, Host: "localhost", RemoteAddr: "127.0.0.1:1", RequestURI: "/",
	}}
}

func (c *inProcess) get(cookie string) error {
	r := c.sent
	r.Header = make(http.Header)
	if cookie != "" {
		r.Header["Cookie"] = []string{cookie}
	}
	c.got = httptest.NewRecorder()
	c.h.ServeHTTP(c.got, &r)
	if c.got.Code != http.StatusOK {
		return fmt.Errorf("status %d", c.got.Code)
	}
	return nil
}

func (c *inProcess) cookie() string { return cookieOf(c.got.Header().Get("Set-Cookie")) }
func (c *inProcess) close() error   { return nil }

// cookieOf returns the name and the value of a Set-Cookie header.
func cookieOf(header string) string {
	pair, _, _ := strings.Cut(header, ";")
	return pair
}

// conn is one connection to a server on loopback. It is no http.Client, which would
// cost more than the server.
type conn struct {
	net.Conn
	r   *bufio.Reader
	out []byte
	set string
}

func dial(addr string) (*conn, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, r: bufio.NewReader(c)}, nil
}

func (c *conn) get(cookie string) error {
	c.out = append(c.out[:0], "GET / HTTP/1.1\r\nHost: localhost\r\n"...)
	if cookie != "" {
		c.out = append(append(append(c.out, "Cookie: "...), cookie...), "\r\n"...)
	}
	if _, err := c.Write(append(c.out, "\r\n"...)); err != nil {
		return err
	}
	return c.answer()
}

func (c *conn) answer() error {
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("answer %q", bytes.TrimSpace(line))
	}
	length := 0
	for c.set = ""; ; {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) == 2 {
			break
		}
		name, rest, _ := bytes.Cut(line, []byte(": "))
		switch string(name) {
		case "Content-Length":
			if length, err = strconv.Atoi(string(bytes.TrimSpace(rest))); err != nil {
				return err
			}
		case "Set-Cookie":
			c.set = cookieOf(string(rest))
		}
	}
	_, err = io.CopyN(io.Discard, c.r, int64(length))
	return err
}

func (c *conn) cookie() string { return c.set }
func (c *conn) close() error   { return c.Conn.Close() }
