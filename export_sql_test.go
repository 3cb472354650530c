package session2

import (
	"context"
	"net/url"
	"time"
)

// DeleteOldAt is DeleteOld at another time than now.
func (s *sqlStore) DeleteOldAt(ctx context.Context, now time.Time, age time.Duration) (int, error) {
	return s.run.DeleteOld(ctx, microTime(now.Add(-age)), microTime(now))
}

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
