package groups

import (
	"encoding/hex"
	"testing"
	"time"
)

// golden is how rows of each kind look. They are for ever: what a released remit wrote is read by all later ones.
var golden = []struct {
	note Note
	hex  string
}{
	{encode(prefixGroup+"g/1", groupRow{
		Version: 1, Generation: 3, Kind: "consumer", Protocol: "range", Leader: "m1", Since: 1000,
		Members: []memberRow{{ID: "m1", Instance: new("i"), ClientID: "c", Host: "/127.0.0.1", Session: 10_000, Rebalance: 60_000, Metadata: []byte{0, 255}, Assigned: []byte{1, 2, 3}}},
	}), "87010368636f6e73756d65726572616e6765626d311903e88188626d31616961636a2f3132372e302e302e3119271019ea604200ff43010203"},
	{generationNote("g/1", 4), "820104"},
	{offsetNote(topicPartition{"t", 7}, "g/1", offset{99, 5, "hello", time.Unix(1_000_000, 0)}), "85011863056568656c6c6f1a3b9aca00"},
}

func TestGoldenRows(t *testing.T) {
	c := &Coordinator{o: Options{Partitions: func(string) int { return 8 }}, groups: map[string]*group{}}
	c.o.EnsureDefaults()
	for _, g := range golden {
		if got := hex.EncodeToString(g.note.Value); got != g.hex {
			t.Errorf("%s is written as\n%s, not\n%s", g.note.Key, got, g.hex)
		}
		if err := c.take(time.Unix(5, 0), g.note); err != nil {
			t.Error(err)
		}
	}
	g := c.groups["g/1"]
	if g == nil || g.state != StateStable || g.generation != 3 || g.given != 4 || g.leader != "m1" || g.kind != "consumer" || g.protocol != "range" {
		t.Fatalf("%+v", g)
	}
	m := g.members["m1"]
	if *m.instance != "i" || m.client != (Client{"c", "/127.0.0.1"}) || m.session != 10*time.Second || m.rebalance != time.Minute ||
		string(m.metadata("range")) != "\x00\xff" || string(m.assigned) != "\x01\x02\x03" || m.expires != time.Unix(15, 0) {
		t.Errorf("%+v", m)
	}
	if o := g.offsets[topicPartition{"t", 7}]; o != (offset{99, 5, "hello", time.Unix(1_000_000, 0)}) {
		t.Errorf("%+v", o)
	}
}

// TestMoves: a group takes what its table says, and nothing else.
func TestMoves(t *testing.T) {
	inputs := []Input{InputRebalance, InputJoined, InputEmptied, InputAssigned, InputRemoved}
	legal := 0
	for _, s := range []State{StateEmpty, StatePreparing, StateCompleting, StateStable, StateDead} {
		for _, in := range inputs {
			next, err := Next(s, in)
			if err == nil {
				legal++
			} else if next != s {
				t.Errorf("%s becomes %s by %s, which it cannot take", s, next, in)
			}
		}
	}
	if legal != len(moves) {
		t.Errorf("%d moves are legal, and the table has %d", legal, len(moves))
	}
}
