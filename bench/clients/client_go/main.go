// The same as client.c for Go.
package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"latchkey"
)

const atOnce = 64

func main() {
	mode := os.Args[1]
	seconds, err := strconv.ParseFloat(os.Args[2], 64)
	if err != nil {
		log.Fatal(err)
	}
	var keys []string
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		keys = append(keys, lines.Text())
	}
	client, ctx := latchkey.New(""), context.Background()
	started := time.Now()
	until := started.Add(time.Duration(seconds * float64(time.Second)))
	var answers int64
	one := func() {
		for time.Now().Before(until) {
			i := atomic.AddInt64(&answers, 1)
			if answer, err := client.Verify(ctx, keys[i%int64(len(keys))], nil); err != nil || !answer.Valid() {
				log.Fatal("a wrong answer, or none: ", err)
			}
		}
	}
	switch mode {
	case "one":
		one()
	case "pipelined":
		var all sync.WaitGroup
		for i := 0; i < atOnce; i++ {
			all.Add(1)
			go func() { defer all.Done(); one() }()
		}
		all.Wait()
	default:
		for time.Now().Before(until) {
			at := int(answers) % (len(keys) - atOnce)
			found, err := client.VerifyMany(ctx, keys[at:at+atOnce], nil)
			if err != nil {
				log.Fatal(err)
			}
			for i := range found {
				if !found[i].Valid() {
					log.Fatal("a wrong answer")
				}
			}
			answers += atOnce
		}
	}
	fmt.Printf("{\"answers\":%d,\"seconds\":%f}\n", answers, time.Since(started).Seconds())
}
