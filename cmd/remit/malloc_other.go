//go:build !linux || !cgo

package main

// Without cgo, Pebble's memtables and cache are Go's memory.

func limitMalloc() {}

func trimMalloc() {}
