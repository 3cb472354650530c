package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// site is one library's application, and a browser.
type site struct {
	*pages
	*httptest.Server
	browser *http.Client
}

func open(l library) (*site, error) {
	p, err := l.open()
	if err != nil {
		return nil, err
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	s := &site{pages: p, Server: httptest.NewTLSServer(p.handler)}
	s.browser = s.Client()
	s.browser.Jar = jar
	s.browser.Transport.(*http.Transport).MaxIdleConnsPerHost = 64
	return s, nil
}

func (s *site) close() {
	s.Server.Close()
	s.done()
}

// get returns the status and the page.
func (s *site) get(path string) (int, string, error) {
	res, err := s.browser.Get(s.URL + path)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	page, err := io.ReadAll(res.Body)
	return res.StatusCode, string(page), err
}

// after asks for the pages one after the other, and returns what the last one says.
func (s *site) after(paths ...string) (page string, err error) {
	for _, path := range paths {
		if _, page, err = s.get(path); err != nil {
			return "", err
		}
	}
	return page, nil
}

// increments has all requests inside the handler before the first one adds.
func increments(s *site) (string, error) {
	if _, err := s.after("/login"); err != nil {
		return "", err
	}
	const n = 64
	s.gate.Add(n)
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { _, errs[i] = s.after("/add") })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return "", err
	}
	return s.after("/count")
}

// logout has the slow request inside its handler when the browser logs out, and the slow
// one's response comes last.
func logout(s *site) (string, error) {
	if _, err := s.after("/login"); err != nil {
		return "", err
	}
	slow := make(chan error)
	go func() {
		_, err := s.after("/slow")
		slow <- err
	}()
	<-s.inside
	if _, err := s.after("/logout"); err != nil {
		return "", err
	}
	close(s.finish)
	if err := <-slow; err != nil {
		return "", err
	}
	user, err := s.after("/user")
	return yes(user != ""), err
}

func stream(s *site) (string, error) {
	value, err := s.after("/stream", "/value")
	return yes(value == "kept"), err
}

func reads(s *site) (string, error) {
	if _, err := s.after("/login"); err != nil {
		return "", err
	}
	before := s.writes()
	_, err := s.after(slices.Repeat([]string{"/user"}, 1000)...)
	return fmt.Sprint(s.writes() - before), err
}

// stolen looks for the cookie's value, its secret part where it has one, as text and as
// the bytes that it stands for.
func stolen(s *site) (string, error) {
	if _, err := s.after("/login"); err != nil {
		return "", err
	}
	at, err := url.Parse(s.URL)
	if err != nil {
		return "", err
	}
	all, err := s.dump()
	if err != nil {
		return "", err
	}
	cookies := s.browser.Jar.Cookies(at)
	if len(cookies) != 1 {
		return "", fmt.Errorf("the browser has %d cookies", len(cookies))
	}
	secret := cookies[0].Value[strings.LastIndex(cookies[0].Value, ".")+1:]
	raw, _ := base64.RawURLEncoding.DecodeString(secret)
	return yes(bytes.Contains(all, []byte(secret)) || len(raw) > 0 && bytes.Contains(all, raw)), nil
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
