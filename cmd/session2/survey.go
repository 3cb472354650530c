package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/session2/session2"
)

// stats counts.
func stats(ctx context.Context, j *job) error {
	records, err := all(ctx, j.store)
	if err != nil {
		return err
	}
	var t totals
	for rec, err := range j.bar.over(records) {
		switch {
		case errors.Is(err, session2.ErrCorrupt):
			t.Corrupt++
		case err != nil:
			return err
		default:
			t.add(rec)
		}
	}
	if j.json {
		return j.out.json.Encode(t)
	}
	return t.print(j)
}

// totals are what stats prints.
type totals struct {
	Records  int     `json:"records"`
	Expired  int     `json:"expired"`
	SignedIn int     `json:"signed_in"`
	Corrupt  int     `json:"corrupt"`
	Bytes    int64   `json:"bytes"`
	Largest  int     `json:"largest"`
	Oldest   *moment `json:"oldest"` // creation; null if there is none
	Latest   *moment `json:"latest"` // access
}

func (t *totals) add(rec session2.Record) {
	t.Records++
	if !rec.Expires.After(time.Now()) {
		t.Expired++
	}
	if rec.User != "" {
		t.SignedIn++
	}
	t.Bytes += int64(len(rec.Data))
	t.Largest = max(t.Largest, len(rec.Data))
	if t.Oldest == nil || rec.Created.Before(t.Oldest.Time) {
		t.Oldest = &moment{rec.Created}
	}
	if t.Latest == nil || rec.Accessed.After(t.Latest.Time) {
		t.Latest = &moment{rec.Accessed}
	}
}

func (t *totals) print(j *job) error {
	mean, oldest, latest := int64(0), "-", "-"
	if t.Records > 0 {
		mean, oldest, latest = t.Bytes/int64(t.Records), stamp(t.Oldest.Time), stamp(t.Latest.Time)
	}
	_, err := fmt.Fprintf(j.out.w, "records    %d\nexpired    %d\nsigned in  %d\nanonymous  %d\ncorrupt    %d\nbytes      %d\nmean       %d\nlargest    %d\noldest     %s\nlatest     %s\n",
		t.Records, t.Expired, t.SignedIn, t.Records-t.SignedIn, t.Corrupt, t.Bytes, mean, t.Largest, oldest, latest)
	return err
}

// check reads every record as a manager would.
func check(ctx context.Context, j *job) error {
	records, err := all(ctx, j.store)
	if err != nil {
		return err
	}
	read, corrupt := 0, []string{}
	for rec, err := range j.bar.over(records) {
		read++
		if err == nil {
			_, err = session2.Inspect(rec)
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, session2.ErrCorrupt) {
			return err
		}
		corrupt = append(corrupt, rec.ID.String())
		j.bar.note(err.Error())
	}
	if err := j.out.result(fields{"records": read, "corrupt": corrupt}, "%d records, %d corrupt", read, len(corrupt)); err != nil {
		return err
	}
	if len(corrupt) > 0 {
		return &exitError{exitCorrupt, fmt.Errorf("%d of %d records are corrupt", len(corrupt), read)}
	}
	return nil
}
