package httpauth

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestWhereAKeyIsPresented(t *testing.T) {
	for _, c := range []struct{ authorization, apiKey, key string }{
		{"Bearer a", "", "a"},
		{"bearer  a ", "", "a"},
		{"", " b", "b"},
		{"Bearer a", "b", "a"},
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
		if key := Key(r); key != c.key {
			t.Errorf("%+v: %q", c, key)
		}
	}
}
