package accounts

import "strings"

// currencies are the active codes of ISO 4217, list one as published on 2026-01-01, by the exponent of
// their minor unit: how many digits an amount may have after its point.
//
// Left out are the codes whose minor unit is "N.A.", which no amount can be counted in: metals (XAG
// XAU XPD XPT), bond market units (XBA XBB XBC XBD), units of account (XDR XSU XUA), and what is no
// money (XTS, XXX).
//
// INVARIANT: a code is added, never taken out, and its exponent never changes: the log holds amounts in it for
// ever. A code that ISO retires stays.
var currencies = [...]struct {
	exponent int
	codes    string
}{
	{0, "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"},
	{2, "AED AFN ALL AMD AOA ARS AUD AWG AZN " +
		"BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD " +
		"CAD CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK " +
		"DKK DOP DZD EGP ERN ETB EUR FJD FKP " +
		"GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF " +
		"IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT " +
		"LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN " +
		"NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB " +
		"SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL " +
		"THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST " +
		"XAD XCD XCG YER ZAR ZMW ZWG"},
	{3, "BHD IQD JOD KWD LYD OMR TND"},
	{4, "CLF UYW"},
}

var exponents = func() map[Currency]int {
	m := make(map[Currency]int, 200)
	for _, group := range currencies {
		for code := range strings.FieldsSeq(group.codes) {
			m[Currency(code)] = group.exponent
		}
	}
	return m
}()
