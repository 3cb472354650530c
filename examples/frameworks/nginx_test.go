package frameworks

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/session2/session2"
)

// program returns where a program is that these tests need. Without it they are skipped,
// but where the test command has promised it.
func program(t *testing.T, names ...string) string {
	t.Helper()
	for _, name := range names {
		for _, path := range []string{name, "/usr/sbin/" + name} {
			if path, err := exec.LookPath(path); err == nil {
				return path
			}
		}
	}
	if os.Getenv("SESSION2_REQUIRE_DB") == "1" {
		t.Fatalf("there is no %s: .ci/tools installs it", names[0])
	}
	t.Skipf("there is no %s", names[0])
	return ""
}

// nginx runs nginx.conf in front of h, and returns its address and the hash of its key.
func nginx(t *testing.T, h http.Handler) (addr, key string) {
	t.Helper()
	bin := program(t, "nginx")
	backend := httptest.NewUnstartedServer(h)
	backend.Config.ErrorLog = log.New(io.Discard, "", 0)
	backend.Start()
	t.Cleanup(backend.Close)
	dir := t.TempDir()
	key = certificate(t, dir)
	addr = freeAddress(t)
	conf, err := os.ReadFile("nginx.conf")
	if err != nil {
		t.Fatal(err)
	}
	text := string(conf)
	for old, now := range map[string]string{ // what is of the test machine alone
		"listen 443 ssl;":            "listen " + addr + " ssl;",
		"http://127.0.0.1:8080":      backend.URL,
		"/etc/ssl/shop.":             dir + "/shop.",
		"\nhttp {":                   "\nhttp {\n" + temporary(dir),
		"\tserver_name shop.example": "\tserver_name shop.example id.example",
	} {
		if strings.Count(text, old) == 0 {
			t.Fatalf("nginx.conf: no %q", old)
		}
		text = strings.ReplaceAll(text, old, now)
	}
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, exec.Command(bin, "-p", dir, "-c", file, "-e", dir+"/error.log",
		"-g", "daemon off; master_process off; pid "+dir+"/nginx.pid;"))
	await(t, addr)
	return addr, key
}

// temporary has nginx write into dir alone.
func temporary(dir string) (lines string) {
	for _, what := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		lines += what + "_temp_path " + dir + "/" + what + ";\n"
	}
	return lines + "access_log off;\n"
}

// run starts a server, and ends it with the test.
func run(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s: %s", cmd.Path, said.String())
		}
	})
}

func freeAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// await waits until somebody listens.
func await(t *testing.T, addr string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// certificate writes one that nobody has signed, and returns the hash of its key, by which
// a browser can be told to trust it.
func certificate(t *testing.T, dir string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "shop.example"},
		DNSNames:  []string{"shop.example", "*.shop.example", "*.example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"shop.pem": {Type: "CERTIFICATE", Bytes: der}, "shop.key": {Type: "PRIVATE KEY", Bytes: secret},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(spki)
	return base64.StdEncoding.EncodeToString(hash[:])
}

// behind is an application behind nginx, as shop.example, and a browser with another address than nginx's.
func behind(t *testing.T, h http.Handler) *browser {
	addr, _ := nginx(t, h)
	b := open(t, http.NotFoundHandler())
	transport := b.Server.Client().Transport.(*http.Transport).Clone()
	transport.TLSClientConfig.InsecureSkipVerify = true // nobody has signed it
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return from.DialContext(ctx, network, addr)
	}
	b.client.Transport = transport
	t.Cleanup(transport.CloseIdleConnections)
	b.URL = "https://shop.example"
	return b
}

// The tour, the stream and the WebSocket through nginx, and the checks that depend on
// what nginx hands on.
func TestBehindNginx(t *testing.T) {
	var log strings.Builder
	news := make(chan string)
	m := manager(t, session2.Config{Logger: newLogger(&log)})
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", login)
	mux.HandleFunc("POST /count", count)
	mux.HandleFunc("POST /logout", logout)
	mux.HandleFunc("/events", events(m, news))
	mux.HandleFunc("/coder", coderSocket(m))
	b := behind(t, behindNginx(protected(m, mux)))

	b.send("POST", "/login")
	b.want(200, "1", "POST", "/count")
	crowdFrom(b, 1)
	b.want(200, "18", "POST", "/count", "Origin", b.URL)
	if res, _ := b.send("POST", "/count", "Origin", "https://evil.example"); res.StatusCode != 403 {
		t.Errorf("another origin: %d", res.StatusCode)
	}
	for info := range m.Sessions(t.Context(), "alice") {
		if !strings.Contains(info.RemoteAddr, "127.0.0.2") {
			t.Errorf("the client's address: %q", info.RemoteAddr)
		}
	}
	conn := dial(t, b, "/coder")
	echoed(t, conn)
	if got := stream(t, b, news); got != "data: something new||event: signed-out|data:|" {
		t.Errorf("the stream: %q", got)
	}
	if _, _, err := conn.Read(t.Context()); err == nil {
		t.Error("the WebSocket: a message after the logout")
	}
	if len(b.cookies()) != 0 || log.Len() != 0 {
		t.Errorf("cookies %v, the log: %s", b.cookies(), log.String())
	}
}
