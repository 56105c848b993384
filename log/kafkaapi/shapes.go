package kafkaapi

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// shape is how the requests of one kind look.
type shape struct {
	key      int16
	max      int16 // the newest version that is described
	flexible int16 // the first version with compact lengths and tags
	fields   []field
}

// field is one field in the versions that have it.
type field struct {
	kind     byte // b h i l u s S y Y, '[' of structs, '<' of others
	from, to int16
	of       []field
}

// shapes are those of the requests that are served.
//
// A line is key, name, newest version, first flexible version, and the fields: b, h, i, l are 1, 2, 4 and 8 bytes, u a UUID, s a
// string, y bytes, S and Y those that may be null; [ ] an array of structs, < > one of others. Versions follow: 3+, 0-12.
// A struct of a flexible version ends with tags.
var shapes = parseShapes(`
0 Produce 13 9: S3+ h i [s0-12 u13+ [i Y]]
1 Fetch 18 12: i0-14 i i i3+ b4+ i7+ i7+ [s0-12 u13+ [i i9+ l i12+ l5+ i]] [s7-12 u13+ <i>]7+ s11+
2 ListOffsets 11 6: i b2+ [s [i i4+ l i0-0]] i10+
3 Metadata 13 9: [u10+ s0-9 S10+] b4+ b8-10 b8+
8 OffsetCommit 10 8: s i1+ s1+ S7+ l2-4 [s0-9 u10+ [i l l1-1 i6+ S]]
9 OffsetFetch 10 6: s0-7 [s <i>]0-7 [s S9+ i9+ [s8-9 u10+ <i>]]8+ b7+
10 FindCoordinator 6 3: s0-3 b1+ <s>4+
11 JoinGroup 9 6: s i i1+ s S5+ s [s y] S8+
12 Heartbeat 4 4: s i s S3+
13 LeaveGroup 5 4: s s0-2 [s S S5+]3+
14 SyncGroup 5 4: s i s S3+ S5+ S5+ [s y]
15 DescribeGroups 6 5: <s> b3+
16 ListGroups 5 3: <s>4+ <s>5+
18 ApiVersions 4 3: s3+ s3+
19 CreateTopics 7 5: [s i h [i <i>] [s S]] i b1+
20 DeleteTopics 6 4: <s>0-5 [S u]6+ i
21 DeleteRecords 2 2: [s [i l]] i
22 InitProducerID 5 2: S i l3+ h3+
23 OffsetForLeaderEpoch 4 4: i3+ [s [i i2+ i]]
32 DescribeConfigs 4 4: [b s <s>] b1+ b3+
33 AlterConfigs 2 2: [b s [s S]] b
35 DescribeLogDirs 4 2: [s <i>]
37 CreatePartitions 3 2: [s i [<i>]] i b
42 DeleteGroups 2 2: <s>
44 IncrementalAlterConfigs 1 1: [b s [s b S]] b
46 ListPartitionReassignments 0 0: i [s <i>]
47 OffsetDelete 0 -: s [s [i]]
60 DescribeCluster 2 0: b b1+ b2+
`)

func parseShapes(text string) map[int16]*shape {
	m := map[int16]*shape{}
	for line := range strings.Lines(strings.TrimSpace(text)) {
		head, fields, _ := strings.Cut(line, ":")
		words := strings.Fields(head)
		s := &shape{key: number(words[0]), max: number(words[2]), flexible: math.MaxInt16}
		if words[3] != "-" {
			s.flexible = number(words[3])
		}
		if name := kmsg.NameForKey(s.key); name != words[1] {
			panic(fmt.Sprintf("kafkaapi: request %d is %s, not %s", s.key, name, words[1]))
		}
		p := shapeParser{rest: strings.TrimSpace(fields)}
		s.fields = p.fields(0)
		m[s.key] = s
	}
	return m
}

func number(s string) int16 {
	n, err := strconv.ParseInt(s, 10, 16)
	if err != nil {
		panic("kafkaapi: shapes: " + err.Error())
	}
	return int16(n)
}

// shapeParser reads the text of this file; it panics on what it does not know.
type shapeParser struct{ rest string }

func (p *shapeParser) fields(end byte) (fs []field) {
	for p.rest != "" {
		c := p.rest[0]
		p.rest = p.rest[1:]
		switch c {
		case ' ':
		case end:
			return fs
		case '[':
			fs = append(fs, p.versions(field{kind: c, of: p.fields(']')}))
		case '<':
			fs = append(fs, p.versions(field{kind: c, of: p.fields('>')}))
		case 'b', 'h', 'i', 'l', 'u', 's', 'S', 'y', 'Y':
			fs = append(fs, p.versions(field{kind: c}))
		default:
			panic(fmt.Sprintf("kafkaapi: shapes: %q", c))
		}
	}
	return fs
}

// versions reads 3+, 0-12 or nothing.
func (p *shapeParser) versions(f field) field {
	n := strings.IndexFunc(p.rest, func(r rune) bool { return (r < '0' || r > '9') && r != '+' && r != '-' })
	if n < 0 {
		n = len(p.rest)
	}
	text := p.rest[:n]
	p.rest = p.rest[n:]
	f.to = math.MaxInt16
	from, to, bounded := strings.Cut(text, "-")
	if from = strings.TrimSuffix(from, "+"); from != "" {
		f.from = number(from)
	}
	if bounded {
		f.to = number(to)
	}
	return f
}
