// Session2 is the command line of session2 with stores in Redis and Valkey: it takes the URLs
// that [github.com/session2/session2/stores/redis.Open] does beside the built-in ones. Run
// session2 help, or see package [github.com/session2/session2/command].
package main

import (
	"os"

	"github.com/session2/session2"
	"github.com/session2/session2/command"
	redisstore "github.com/session2/session2/stores/redis"
)

func main() {
	os.Exit(command.Main(os.Args[1:], map[string]session2.OpenFunc{
		"redis": redisstore.Open, "rediss": redisstore.Open,
	}))
}
