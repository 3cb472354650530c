// Package sqltest tests the stores that need database servers, alone and under a
// manager. It has tests only.
package sqltest
