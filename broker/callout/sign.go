package callout

import (
	"fmt"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// secretPrefix begins a secret that is base64, as Standard Webhooks hands them out. Any other text is the key itself.
const secretPrefix = "whsec_"

// CheckSecret reports why a secret cannot be signed with; nil if it can. It is for the door where secrets come in.
func CheckSecret(secret string) error {
	_, err := newSigner(secret)
	return err
}

func newSigner(secret string) (*standardwebhooks.Webhook, error) {
	if secret == "" {
		return nil, fmt.Errorf("%w: a secret is empty", ErrBadTarget)
	}
	if !strings.HasPrefix(secret, secretPrefix) {
		return standardwebhooks.NewWebhookRaw([]byte(secret))
	}
	signer, err := standardwebhooks.NewWebhook(secret)
	if err != nil || secret == secretPrefix {
		return nil, fmt.Errorf("%w: a secret begins with %s, and what follows is not base64", ErrBadTarget, secretPrefix)
	}
	return signer, nil
}

// signature is the header's value: one signature a secret, in their order.
func signature(signers []*standardwebhooks.Webhook, id string, at time.Time, body []byte) (string, error) {
	var b strings.Builder
	for i, s := range signers {
		one, err := s.Sign(id, at, body)
		if err != nil {
			return "", err
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(one)
	}
	return b.String(), nil
}

// webhookID writes an id as a webhook-id. What is signed is id.time.body, so a full stop in the id could stand for the one behind it: it and
// all that a header may not have becomes %XX, as in a URL. Ids of remit stay as they are.
func webhookID(id string) string {
	const hex = "0123456789ABCDEF"
	plain := func(c byte) bool {
		return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-_:~/", c) >= 0
	}
	var b strings.Builder
	for i := range len(id) {
		if c := id[i]; plain(c) {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	return b.String()
}
