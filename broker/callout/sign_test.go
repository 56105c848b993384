package callout

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// verified reports whether one of a call's signatures is the key's: the specification's own words, without a library.
func verified(h http.Header, body, key []byte) bool {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(h.Get("webhook-id") + "." + h.Get("webhook-timestamp") + "."))
	mac.Write(body)
	for _, s := range strings.Split(h.Get("webhook-signature"), " ") {
		version, text, _ := strings.Cut(s, ",")
		sum, err := base64.StdEncoding.DecodeString(text)
		if err == nil && version == "v1" && hmac.Equal(sum, mac.Sum(nil)) {
			return true
		}
	}
	return false
}

// TestSigned: every call is signed with each of the target's secrets, for whoever verifies with one of them (O4).
func TestSigned(t *testing.T) {
	const secretNew, secretOld = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "a text of one's own"
	keyNew, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secretNew, "whsec_"))
	if err != nil {
		t.Fatal(err)
	}
	verifierNew, _ := standardwebhooks.NewWebhook(secretNew)
	verifierOld, _ := standardwebhooks.NewWebhookRaw([]byte(secretOld))
	other, _ := standardwebhooks.NewWebhookRaw([]byte("another"))
	type call struct {
		http.Header
		body []byte
	}
	came := make(chan call, 1)
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		came <- call{r.Header, body}
	})
	c := open(t, Options{})
	for name, to := range map[string]Target{
		"one":           {Name: "a", URLs: []string{url}, Secrets: []string{secretNew}},
		"two":           {Name: "a", URLs: []string{url}, Secrets: []string{secretNew, secretOld}},
		"one of before": {Name: "a", URLs: []string{url}, Secrets: []string{secretOld}},
	} {
		for _, body := range [][]byte{[]byte(`{"a":1}`), nil, bytes.Repeat([]byte{0xff, 0}, 1<<20)} {
			t.Run(name, func(t *testing.T) {
				do(t, c, to, Request{ID: "0191a0de-aaaa-8bbb-8ccc-000000000001", Body: body})
				got := <-came
				if n := len(strings.Split(got.Get("webhook-signature"), " ")); n != len(to.Secrets) {
					t.Errorf("%d signatures for %d secrets", n, len(to.Secrets))
				}
				for _, v := range []struct {
					secret  string
					key     []byte
					library *standardwebhooks.Webhook
				}{{secretNew, keyNew, verifierNew}, {secretOld, []byte(secretOld), verifierOld}, {"another", []byte("another"), other}} {
					want := strings.Contains(strings.Join(to.Secrets, " "), v.secret)
					if err := v.library.Verify(got.body, got.Header); (err == nil) != want {
						t.Errorf("who has %q verifies: %v", v.secret, err)
					}
					if verified(got.Header, got.body, v.key) != want {
						t.Errorf("who has %q and reads the specification verifies: %t", v.secret, !want)
					}
				}
				if err := verifierNew.Verify(append(got.body, 'x'), got.Header); err == nil {
					t.Error("another body is verified too")
				}
			})
		}
	}
	do(t, c, Target{Name: "a", URLs: []string{url}}, Request{ID: "1"})
	if got := <-came; got.Get("webhook-signature") != "" || got.Get("webhook-id") != "1" || got.Get("webhook-timestamp") == "" {
		t.Errorf("without a secret: %v", got.Header)
	}
}

// TestVector: a signature as the implementations of other languages have it in their tests.
func TestVector(t *testing.T) {
	s, err := newSigner("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	got, err := signature([]*standardwebhooks.Webhook{s, s}, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	const want = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
	if err != nil || got != want+" "+want {
		t.Errorf("%s, %v", got, err)
	}
}

// TestWallClock: a wall clock that is set is in the timestamp, at each try, and nowhere else.
func TestWallClock(t *testing.T) {
	var stamps []string
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		stamps = append(stamps, r.Header.Get("webhook-timestamp"))
		w.WriteHeader(map[bool]int{true: 500, false: 200}[len(stamps) == 1])
	})
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	now := start
	c := open(t, Options{BreakerFailures: 2, RatePerSecond: 1000, Now: func() time.Time { return now }})
	to := orders(url, url+"/other")
	do(t, c, to, request) // two tries
	for _, jump := range []time.Duration{-time.Hour, time.Hour, 1000 * time.Hour, -10000 * time.Hour} {
		now = start.Add(jump)
		do(t, c, to, request)
		if got := stamps[len(stamps)-1]; got != strconv.FormatInt(now.Unix(), 10) {
			t.Errorf("%s: the timestamp is %s", jump, got)
		}
	}
	if h := c.Health("orders/check"); h.Open || h.Queued+h.UnderWay != 0 || len(stamps) != 6 {
		t.Errorf("%+v after %d calls", h, len(stamps))
	}
}

func TestCheckSecret(t *testing.T) {
	for secret, good := range map[string]bool{
		"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw": true, "any text": true, "whsec": true,
		"": false, "whsec_": false, "whsec_a": false, "whsec_ä": false,
	} {
		if err := CheckSecret(secret); (err == nil) != good || err != nil && !errors.Is(err, ErrBadTarget) {
			t.Errorf("%q: %v", secret, err)
		}
		if err := CheckSecret(secret); err != nil && len(secret) > 7 && strings.Contains(err.Error(), secret) {
			t.Errorf("the error tells the secret: %v", err)
		}
	}
}

// FuzzWebhookID: two ids stay two, have no full stop, and fit a header.
func FuzzWebhookID(f *testing.F) {
	f.Add("a.b", "a%2Eb")
	f.Add("0191a0de-aaaa-8bbb-8ccc-000000000001/debit/try", "\x00é")
	f.Fuzz(func(t *testing.T, a, b string) {
		x, y := webhookID(a), webhookID(b)
		if (x == y) != (a == b) {
			t.Errorf("%q is %q, %q is %q", a, x, b, y)
		}
		if strings.ContainsFunc(x, func(r rune) bool { return r <= ' ' || r > '~' || r == '.' || r == ',' }) {
			t.Errorf("%q is %q", a, x)
		}
	})
}
