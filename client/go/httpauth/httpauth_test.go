package httpauth

import (
	"net/http"
	"net/http/httptest"
	"testing"

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
