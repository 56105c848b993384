// Package torture runs a server as a process of its own, so that it can be killed at any moment: kill -9 leaves no time to
// put anything in order, and what is there after it is what was durable.
package torture
