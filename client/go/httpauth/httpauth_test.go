package httpauth

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"latchkey"
)

func TestWhereAKeyIsPresented(t *testing.T) {
	for _, c := range []struct{ authorization, apiKey, key string }{
		{"Bearer a", "", "a"},
		{"bearer  a ", "", "a"},
		{"", " b", "b"},
		{"Basic eA==", "b", "b"},
		{"Bearer ", "", ""},
		{"Bearer ", "b", "b"},
		{"Bearer  ", "b", "b"},
		{"", " ", ""},
		{"", "", ""},
		{"Bearer \t a\u00a0 ", "", "a\u00a0"}, // HTTP's white space is only the space and the tab
		{"Bearer a\u0085", "", "a\u0085"},
		{"", "\tb\u00a0\t", "b\u00a0"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", c.authorization)
		r.Header.Set("X-API-Key", c.apiKey)
		if key, err := Key(r); key != c.key || err != nil {
			t.Errorf("%+v: %q %v", c, key, err)
		}
	}
}

func TestSeveralCredentialsAreRefused(t *testing.T) {
	for _, headers := range []http.Header{
		{"Authorization": {"Bearer a", "Bearer b"}},
		{"Authorization": {"Bearer a", "Bearer a"}},
		{"Authorization": {"Basic eA==", "Bearer b"}},
		{"Authorization": {"Bearer a"}, "X-Api-Key": {"b"}},
		{"X-Api-Key": {"a", "b"}},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header = headers
		if key, err := Key(r); key != "" || err != ErrSeveralCredentials {
			t.Errorf("%v: %q %v", headers, key, err)
		}
		w := httptest.NewRecorder()
		in := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("let in") })
		Require(latchkey.New("/nowhere"), latchkey.Question{})(in).ServeHTTP(w, r)
		if w.Code != http.StatusBadRequest {
			t.Errorf("%v: %d", headers, w.Code)
		}
	}
}

func TestACancelledRequestIsNoYes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		for {
			if _, err := listener.Accept(); err != nil { // never answers
				return
			}
			cancel() // like a server that is stopping
		}
	}()
	client := latchkey.New(path).WithTimeout(time.Minute)
	defer client.Close()
	in := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("let in") })
	server := httptest.NewUnstartedServer(Require(client, latchkey.Question{})(in))
	server.Config.BaseContext = func(net.Listener) context.Context { return ctx }
	server.Start()
	defer server.Close()
	for i := 0; i < 3; i++ { // under way at the cancellation, and started after it
		r, _ := http.NewRequest(http.MethodGet, server.URL, nil)
		r.Header.Set("X-API-Key", "key")
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("request %d: %s", i, response.Status)
		}
	}
}

func TestAQuestionThatCannotBeAskedIsToldAtOnce(t *testing.T) {
	age := -time.Second
	for name, question := range map[string]latchkey.Question{
		"a scope":       {AllScopes: []string{"read write"}},
		"another scope": {AnyScopes: []string{""}},
		"a source":      {Source: "a b"},
		"an age":        {MaxAge: &age},
	} {
		func() {
			defer func() {
				if text, _ := recover().(string); !strings.HasPrefix(text, "httpauth.Require: this cannot be asked: ") {
					t.Errorf("%s: %q", name, text)
				}
			}()
			Require(latchkey.New("/nowhere"), question)
		}()
	}
}
