package api

import (
	"errors"
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/remitlog/remit/broker/callout"
	"github.com/remitlog/remit/log/registry"
	"github.com/remitlog/remit/log/when"
)

// The longest texts of a registration, in bytes.
const (
	URLMax    = 2048
	SecretMax = 1024
)

// The most that a registration may ask of the calls that are made for it.
const (
	ConcurrencyMax = 1024
	RateMax        = 100_000
)

// durationMax bounds what is registered, so that sums of a few fit.
const durationMax = 100 * 365 * 24 * time.Hour

func given(d *Duration, ifNot time.Duration) time.Duration {
	if d == nil {
		return ifNot
	}
	return min(time.Duration(*d), durationMax)
}

// spanOf is a duration as the registry has it.
func spanOf(ms int64) Duration { return Duration(time.Duration(ms) * time.Millisecond) }

// number reads a number from 1 to most; 0 if it is not given.
func number(field string, n *int, most int) (int, error) {
	switch {
	case n == nil:
		return 0, nil
	case *n < 1 || *n > most:
		return 0, invalidField(field, "%d cannot be; give 1 to %d, or leave it out", *n, most)
	default:
		return *n, nil
	}
}

// checkAddress refuses a URL that can never be called, or would not be called as it stands. What its name resolves to, and whether calls may go
// there, is looked at with each call. What an address may hide is not repeated.
func checkAddress(field, address string) error {
	u, err := url.Parse(address)
	switch {
	case address == "":
		return invalidField(field, "it is missing; give the address that is to be called")
	case len(address) > URLMax:
		return invalidField(field, "it has %d bytes, at most %d are taken", len(address), URLMax)
	case err == nil && u.User != nil:
		return invalidField(field, "it has a user in it; whoever reads registrations would see the password. Calls are signed with the secret instead")
	case err != nil:
		return invalidField(field, "it is not an address such as https://orders.example/check: it cannot be read") // there may be a password in it
	case u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		return invalidField(field, "%.200q is not an address such as https://orders.example/check", address)
	case u.Fragment != "":
		return invalidField(field, "it has a fragment, which is sent to nobody; leave out the # and what follows it")
	case !isPort(u.Port()):
		return invalidField(field, "there is no port %.20s; give 1 to 65535, or none for the usual one", u.Port())
	}
	if why := callout.NeverCalled(u.Hostname()); why != "" {
		return invalidField(field, "it leads to %.100s, %s: never called; give the address of a host, or its name", u.Hostname(), why)
	}
	return nil
}

// isPort reports whether the port of a URL, digits or nothing, can be called.
func isPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return port == "" || err == nil && n > 0
}

// checkCondition refuses what is no condition in CloudEvents SQL, and says where it stops being one. None at all always holds.
func checkCondition(field, text string) error {
	if text == "" {
		return nil
	}
	_, err := when.Compile(text)
	if bad, ok := errors.AsType[*when.SyntaxError](err); ok {
		return invalidField(field, "character %d: %s", bad.Character, bad.Detail)
	}
	return err
}

// secretOf reads a secret; keep says that it stays as it is. INVARIANT: no error repeats any of it.
func secretOf(field string, given *string) (s registry.Secret, keep bool, err error) {
	if given == nil {
		return s, true, nil
	}
	s.Now = *given
	switch {
	case s.Now == "":
		return s, false, nil
	case len(s.Now) > SecretMax:
		return registry.Secret{}, false, invalidField(field, "it has %d bytes, at most %d are taken", len(s.Now), SecretMax)
	case strings.TrimSpace(s.Now) != s.Now || strings.ContainsFunc(s.Now, unicode.IsControl):
		return registry.Secret{}, false, invalidField(field, "it begins or ends with a space, or has a line break or another control character in it; send it without")
	case callout.CheckSecret(s.Now) != nil:
		return registry.Secret{}, false, invalidField(field, "it begins with whsec_, and what follows is not base64; send it as it was made, or any other text")
	}
	return s, false, nil
}

func putStatus(added bool) int {
	if added {
		return http.StatusCreated
	}
	return http.StatusOK
}

// pageByName is a page of what is listed by name.
func pageByName[T, A any](q *Query, page Page, all []T, name func(T) string, answer func(T) A) List[A] {
	all = all[sort.Search(len(all), func(i int) bool { return name(all[i]) > string(page.Cursor) }):]
	list := List[A]{Items: []A{}}
	for i, found := range all {
		if i == page.Size {
			list.NextPageToken = q.NextPageToken([]byte(name(all[i-1])))
			break
		}
		list.Items = append(list.Items, answer(found))
	}
	return list
}
