// Package pgxtest tests the PostgreSQL store over pgx. It is a module of its
// own, so that the library does not depend on that driver.
package pgxtest
