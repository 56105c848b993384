//go:build !linux || !cgo

package main

// limitMalloc does nothing: there is no glibc, or it is not used.
func limitMalloc() {}
