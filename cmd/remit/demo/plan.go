package demo

import (
	"fmt"
	"math/rand/v2"

	"github.com/remitlog/remit/saga/accounts"
)

const currency accounts.Currency = "EUR"

// plan is what will be asked for.
type plan struct {
	consumers []account
	merchants []account
	payments  []payment
}

type account struct {
	name    string
	deposit int64 // minor units
}

// ending is what becomes of a payment that is held first.
type ending int

const (
	atOnce ending = iota
	captured
	partly // captured in part
	voided
)

// payment is one payment with what happens around it.
type payment struct {
	name, payer, payee string
	amount             int64
	ending             ending
	repeated           bool // asked for a second time, as by a client that missed the answer
	refunded           bool // a quarter of it, if it is paid
}

// newPlan makes consumers of whom a few buy much, merchants of whom a few sell much, and some who cannot pay.
func newPlan(seed uint64, payments int) plan {
	const consumers, merchants = 300, 40
	rnd := rand.New(rand.NewPCG(seed, 0))
	p := plan{}
	for i := range consumers {
		p.consumers = append(p.consumers, account{fmt.Sprintf("consumer-%03d", i+1), int64(50_00 + rnd.IntN(1200_00))})
	}
	for i := range merchants {
		p.merchants = append(p.merchants, account{name: fmt.Sprintf("shop-%02d", i+1)})
	}
	buyers := rand.NewZipf(rnd, 1.1, 20, consumers-1)
	sellers := rand.NewZipf(rnd, 1.2, 3, merchants-1)
	for i := range payments {
		x := payment{
			name: fmt.Sprintf("order-%05d", i+1), payer: p.consumers[buyers.Uint64()].name, payee: p.merchants[sellers.Uint64()].name,
			amount: int64(1_00 + rnd.IntN(60_00)), repeated: rnd.IntN(20) == 0, refunded: rnd.IntN(25) == 0,
		}
		switch rnd.IntN(60) {
		case 0, 1:
			x.ending = captured
		case 2:
			x.ending = partly
		case 3:
			x.ending = voided
		}
		p.payments = append(p.payments, x)
	}
	return p
}
