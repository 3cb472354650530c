package protocol

// promise is what managers promise to those who use them. A run fails by breaking
// one, and each is broken by a fault in plants.
type promise string

const (
	keeps     promise = "keeps"     // no acknowledged change is lost
	single    promise = "single"    // no change is stored, or shown, twice
	traceless promise = "traceless" // a failed request leaves no trace
	ended     promise = "ended"     // nothing opens a session after an acknowledged logout, or when its time is over
	staysIn   promise = "stays in"  // no honest client is locked out
	caught    promise = "caught"    // a thief is out, and noticed
	oneToken  promise = "one token" // a token has one valid successor
	apart     promise = "apart"     // nobody gets anything of another user, or of another realm
	secret    promise = "secret"    // no secret is in the store, an event or an error
	limit     promise = "limit"     // a user has no more sessions than there may be
	told      promise = "told"      // nothing fails where no call did, and success is told of what is done alone
)

var promises = []promise{keeps, single, traceless, ended, staysIn, caught, oneToken, apart, secret, limit, told}
