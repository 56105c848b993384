//go:build !linux || !cgo

package main

// Without cgo, Pebble's memtables and cache are Go's memory; elsewhere nothing is known of the allocator.

func limitMalloc() {}

func trimMalloc() {}
