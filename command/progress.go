package command

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"os"
	"sync"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/tally"
)

// progress shows on a terminal how far the work is. Elsewhere it is silent.
type progress struct {
	w    io.Writer
	name string
	live bool // on a terminal

	mu      sync.Mutex
	begun   time.Time
	shown   time.Time
	done    int
	latest  session2.ID
	ordered bool // the records come in the order of their IDs' first byte so far
	line    bool // there is one on the screen
}

const progressEvery = 200 * time.Millisecond

func newProgress(w io.Writer, name string) *progress {
	return &progress{w: w, name: name, live: isTerminal(w), begun: time.Now(), ordered: true}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// over passes records on and counts them.
func (p *progress) over(records iter.Seq2[session2.Record, error]) iter.Seq2[session2.Record, error] {
	p.mu.Lock()
	p.begun, p.done, p.latest, p.ordered = time.Now(), 0, session2.ID{}, true
	p.mu.Unlock()
	return func(yield func(session2.Record, error) bool) {
		for rec, err := range records {
			p.saw(rec.ID)
			if !yield(rec, err) {
				return
			}
		}
	}
}

// saw counts a record. IDs are random: where they come in order, an ID tells
// which part of all records was before it.
func (p *progress) saw(id session2.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done++
	p.ordered = p.ordered && id[0] >= p.latest[0]
	p.latest = id
	p.tick()
}

// deleting returns a context for a deletion, which counts what it deletes. How
// much there is nobody knows.
func (p *progress) deleting(ctx context.Context) context.Context {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begun, p.done, p.ordered = time.Now(), 0, false
	p.tick()
	return tally.With(ctx, func(deleted int) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.done += deleted
		p.tick()
	})
}

// tick shows the state if the last one is old enough.
func (p *progress) tick() {
	if p.live && time.Since(p.shown) >= progressEvery {
		p.show()
	}
}

func (p *progress) show() {
	p.shown, p.line = time.Now(), true
	elapsed := time.Since(p.begun)
	text := p.name + ": at work"
	if p.done > 0 {
		text = fmt.Sprintf("%s: %d records, %.0f/s", p.name, p.done, float64(p.done)/elapsed.Seconds())
	}
	if p.ordered && p.done > 100 {
		part := max(float64(binary.BigEndian.Uint64(p.latest[:8]))/(1<<64), 0.001)
		left := time.Duration(float64(elapsed) * (1 - part) / part)
		text += fmt.Sprintf(", %.0f %%, %v left", 100*part, left.Round(time.Second))
	}
	fmt.Fprintf(p.w, "\r%s\x1b[K", text)
}

// note writes a line beside the progress.
func (p *progress) note(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	fmt.Fprintln(p.w, text)
}

// stop takes the line away.
func (p *progress) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}

func (p *progress) clear() {
	if p.line {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.line = false
	}
}
