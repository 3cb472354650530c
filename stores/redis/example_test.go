package redisstore_test

import (
	"context"
	"fmt"
	"log"

	"github.com/redis/go-redis/v9"

	"github.com/session2/session2"
	redisstore "github.com/session2/session2/stores/redis"
)

func ExampleNewStore() {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:6379", ContextTimeoutEnabled: true})
	defer client.Close()
	store, err := redisstore.NewStore(client, &redisstore.Options{Prefix: "app:"})
	if err != nil {
		log.Fatal(err)
	}
	// When the application starts: err = store.Setup(ctx)

	_, err = session2.NewManager(store, session2.Config{
		Require: session2.Capabilities{MultihostSafe: true},
	})
	fmt.Println(err)
	// Output: <nil>
}

func ExampleOptions() {
	client := redis.NewClient(&redis.Options{Addr: "managed.example:6379"})
	defer client.Close()
	store, err := redisstore.NewStore(client, &redisstore.Options{DeclareDurable: true})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(store.Capabilities().Durable)
	// Output: true
}

func ExampleOpen() {
	schemes := map[string]session2.OpenFunc{"redis": redisstore.Open, "rediss": redisstore.Open}
	store, err := session2.OpenWith(context.Background(), "redis://127.0.0.1:6379/0?prefix=app:", schemes)
	if err != nil {
		log.Fatal(err)
	}
	defer session2.Close(store)
	_, err = session2.OpenWith(context.Background(), "redis://app:secret@127.0.0.1/zero", schemes)
	fmt.Println(err)
	// Output: session2: open: go-redis refuses the URL or one of its options
}
