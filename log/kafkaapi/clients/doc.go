// Package clients has tests alone: clients of many makers against a running remit.
//
// Each lists topics, produces, reads in a group of three of which one is killed, resumes, and seeks to a time. .ci/clients installs them;
// a test skips, and says so, where its client is not there.
package clients
