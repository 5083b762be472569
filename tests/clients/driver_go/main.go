// The Go counterpart of driver.c.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"latchkey"
)

func milliseconds(word string) time.Duration {
	number, err := strconv.Atoi(word)
	if err != nil {
		panic(err)
	}
	return time.Duration(number) * time.Millisecond
}

// max age, source, all scopes, any scopes; `-` means none.
func question(words []string) *latchkey.Question {
	var q latchkey.Question
	if words[0] != "any" {
		maxAge := milliseconds(words[0])
		q.MaxAge = &maxAge
	}
	if words[1] != "-" {
		q.Source = words[1]
	}
	if words[2] != "-" {
		q.AllScopes = strings.Split(words[2], ",")
	}
	if words[3] != "-" {
		q.AnyScopes = strings.Split(words[3], ",")
	}
	return &q
}

type object = map[string]any

func told(a latchkey.Answer) object {
	facts := object{"verdict": a.Verdict.String(), "fresh": a.Fresh}
	if a.Age >= 0 {
		facts["age_ms"] = a.Age.Milliseconds()
	}
	for name, text := range map[string]*string{"source": a.Source, "key_id": a.KeyID, "sub": a.Subject,
		"tenant": a.Tenant, "scope": a.Scope} {
		if text != nil {
			facts[name] = *text
		}
	}
	if a.Expires != nil {
		facts["exp"] = a.Expires.Unix()
	}
	return facts
}

func run(client *latchkey.Client, words []string) (object, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if words[0] != "sync" { // a sync has a timeout of its own in addition
		ctx, cancel = context.WithTimeout(ctx, milliseconds(words[1]))
		defer cancel()
	}
	command, words := words[0], words[2:]
	switch command {
	case "ping":
		return object{}, client.Ping(ctx)
	case "status":
		text, err := client.Status(ctx)
		return object{"json": text}, err
	case "sync":
		waited, err := client.Sync(ctx, milliseconds(words[0]))
		return object{"waited_us": waited.Microseconds()}, err
	case "why":
		text, err := client.Why(ctx, words[4], question(words))
		return object{"json": text}, err
	}
	keys := words[4:]
	if len(keys) == 1 {
		answer, err := client.Verify(ctx, keys[0], question(words))
		if err != nil {
			return nil, err
		}
		return object{"answers": []object{told(*answer)}}, nil
	}
	answers, err := client.VerifyMany(ctx, keys, question(words))
	list := []object{}
	for _, answer := range answers {
		list = append(list, told(answer))
	}
	return object{"answers": list}, err
}

func main() {
	// The contexts limit the duration of each call.
	client := latchkey.New("").WithTimeout(time.Hour)
	defer client.Close()
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		result, err := run(client, strings.Split(lines.Text(), "\t"))
		var failure *latchkey.Error
		if errors.As(err, &failure) {
			result = object{"failure": failure.Failure, "text": failure.Text}
			if failure.Refusal != "" {
				result["refusal"] = failure.Refusal
			}
		} else if err != nil {
			panic(err)
		}
		line, err := json.Marshal(result)
		if err != nil {
			panic(err)
		}
		fmt.Println(string(line))
	}
}
