// Package api is remit's HTTP face: the conventions that every call shares, and, in a file a noun,
// the calls themselves.
//
// # A noun
//
// A noun is a struct with what it needs and a method Routes that returns its [Route] values. A
// [Handler] returns an error instead of writing it; a [Problem] is sent as it is, an error of log/
// is translated, everything else is logged once and sent as 500:
//
//	func (p *Payments) get(w http.ResponseWriter, r *http.Request) error {
//		ref, err := api.ParseRef("id", r.PathValue("id"))
//		if err != nil {
//			return err
//		}
//		q := api.ParseQuery(r)
//		after, wait := q.After()
//		if err := q.Done(); err != nil {
//			return err
//		}
//		…
//		api.SetPosition(w, position)
//		return api.WriteJSON(w, http.StatusOK, payment)
//	}
//
// Bodies are read with [Decode], lists with [Query.Page], NDJSON with [Stream].
//
// # Guarantees
//
// H1 (strict in): an unknown field or parameter, a field twice, a wrong type and what trails are 400 and
// name the field. Nothing is guessed.
//
// H2 (one shape of error): every answer above 399 is application/problem+json with a code of [Codes],
// also those of the router and of a panic.
//
// H3 (a line answers for itself): in a [Stream] answers come in the order of their lines, one each,
// whatever the lines before did; a line that was cut off is never begun.
//
// # Not promised
//
// Who may call is not decided here. Pages of other origins are refused (see [Server]), and the command does not
// listen beyond this machine.
package api
