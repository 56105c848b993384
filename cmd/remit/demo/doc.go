// Package demo shows the main job from start to verified end: a server of its own, payments between consumers and merchants of its own
// making, a kill -9 half way, and then a look at whether everything that was promised holds.
//
// What it makes is a function of the seed; what is decided in which order is not, since callers run side by side.
package demo
