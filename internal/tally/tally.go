// Package tally lets the caller of a long deletion see how far it is, by way of
// the context: the store's interface has no room for it.
package tally

import "context"

type key struct{}

// With returns a context whose deletions are counted by add, which several
// goroutines may call at once.
func With(ctx context.Context, add func(deleted int)) context.Context {
	return context.WithValue(ctx, key{}, add)
}

// Add counts records that were just deleted, if anybody counts.
func Add(ctx context.Context, deleted int) {
	if add, ok := ctx.Value(key{}).(func(int)); ok {
		add(deleted)
	}
}
