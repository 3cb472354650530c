package session2

import (
	"net/url"
)

// MySQLServerName is whose certificate a store of this URL expects.
func MySQLServerName(rawURL string) (string, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "", err
	}
	cfg, err := mysqlConfig(u, &openOptions{query: u.Query()})
	if err != nil {
		return "", err
	}
	return cfg.TLS.ServerName, nil
}
