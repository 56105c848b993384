package log

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// DecompressedMax is how many bytes the records of one compressed batch may have: no few bytes can take all memory.
const DecompressedMax = AppendMax

// The codecs of a batch, in the low bits of its attributes.
const (
	codecNone   = 0
	codecGzip   = 1
	codecSnappy = 2
	codecLZ4    = 3
	codecZstd   = 4
)

func (b Batch) compressed() bool { return b.attributes()&compressionMask != codecNone }

// decompress returns the records of b as they are laid out uncompressed. It copies only what is compressed.
func (b Batch) decompress() ([]byte, error) {
	packed := []byte(b[batchRecordsAt:])
	switch codec := b.attributes() & compressionMask; codec {
	case codecNone:
		return packed, nil
	case codecGzip:
		r, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", err)
		}
		return readAll("gzip", r)
	case codecSnappy:
		return unsnappy(packed)
	case codecLZ4:
		return readAll("lz4", lz4.NewReader(bytes.NewReader(packed)))
	case codecZstd:
		return unzstd(packed)
	default:
		return nil, fmt.Errorf("codec %d is not known; use gzip, snappy, lz4 or zstd", codec)
	}
}

func errDecompressed(codec string) error {
	return fmt.Errorf("%s: more than %d bytes of records; send less at once", codec, DecompressedMax)
}

func readAll(codec string, r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, DecompressedMax+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", codec, err)
	}
	if len(b) > DecompressedMax {
		return nil, errDecompressed(codec)
	}
	return b, nil
}

// zstdDecoder decodes without state between calls, from many goroutines.
var zstdDecoder, _ = zstd.NewReader(nil, zstd.WithDecoderMaxMemory(DecompressedMax), zstd.WithDecoderConcurrency(0), zstd.WithDecoderLowmem(true))

func unzstd(packed []byte) ([]byte, error) {
	b, err := zstdDecoder.DecodeAll(packed, nil)
	if errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		return nil, errDecompressed("zstd")
	}
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return b, nil
}

// xerial is how the Java client frames snappy: this magic, two versions:4, then blocks of length:4 and snappy.
var xerial = []byte("\x82SNAPPY\x00")

const xerialHeadLen = 16

func unsnappy(packed []byte) ([]byte, error) {
	if !bytes.HasPrefix(packed, xerial) {
		return unsnappyBlock(nil, packed)
	}
	if len(packed) < xerialHeadLen {
		return nil, errors.New("snappy: cut short")
	}
	var out []byte
	for rest := packed[xerialHeadLen:]; len(rest) > 0; {
		if len(rest) < 4 || uint64(binary.BigEndian.Uint32(rest)) > uint64(len(rest)-4) {
			return nil, errors.New("snappy: cut short")
		}
		n := int(binary.BigEndian.Uint32(rest))
		var err error
		if out, err = unsnappyBlock(out, rest[4:4+n]); err != nil {
			return nil, err
		}
		rest = rest[4+n:]
	}
	return out, nil
}

// unsnappyBlock appends one block to out.
func unsnappyBlock(out, block []byte) ([]byte, error) {
	n, err := s2.DecodedLen(block)
	if err != nil {
		return nil, fmt.Errorf("snappy: %w", err)
	}
	if len(out)+n > DecompressedMax {
		return nil, errDecompressed("snappy")
	}
	if n > len(block)*snappyRatioMax {
		return nil, fmt.Errorf("snappy: %d bytes cannot hold %d", len(block), n)
	}
	raw, err := s2.Decode(nil, block)
	if err != nil {
		return nil, fmt.Errorf("snappy: %w", err)
	}
	if out == nil {
		return raw, nil
	}
	return append(out, raw...), nil
}

// snappyRatioMax is above what snappy can reach: a copy of three bytes makes 64.
const snappyRatioMax = 64
