// Package logtest states the contract of log.Log once, as tests that every implementation passes, and
// holds the faulty disks and clocks that its implementations, and what stands on them, are tested with.
//
//	func TestContract(t *testing.T) {
//		logtest.Exercise(t, func(t *testing.T) log.Log { … })
//	}
package logtest
