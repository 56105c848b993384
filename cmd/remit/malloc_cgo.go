//go:build linux && cgo

package main

// #include <malloc.h>
//
// static void limit(void) {
// #ifdef __GLIBC__
//	mallopt(M_ARENA_MAX, 2);
// #endif
// }
//
// static void trim(void) {
// #ifdef __GLIBC__
//	malloc_trim(0);
// #endif
// }
import "C"

// limitMalloc has C's allocator, which Pebble's memtables and cache are of, use two arenas. By default glibc makes up to eight a processor, each of
// which keeps what is freed in it.
func limitMalloc() { C.limit() }

// trimMalloc gives what lies free between blocks of the cache back to the operating system.
func trimMalloc() { C.trim() }
