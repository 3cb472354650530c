package session2

import "context"

// spend makes one change by a Save of its own, which must find the session
// stored. The changes that wait for the request's commit are left as they are.
func (s *Session) spend(ctx context.Context, o op) error {
	s.look()
	s.mu.Unlock()
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	t, _, err := s.start()
	if err != nil {
		return err
	}
	t.log, t.spend, t.login = []op{o}, true, false
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.m.cfg.CommitTimeout)
	defer cancel()
	if err := t.run(ctx); err != nil {
		return err
	}
	s.adopt(ctx, t, nil, false)
	return nil
}
