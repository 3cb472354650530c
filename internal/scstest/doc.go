// Package scstest tests FromSCS with stores of alexedwards/scs, and how an application
// comes from there. It is a module of its own, so that the library does not depend on it.
package scstest
