// Command remit is the server and the command line of remit: `remit dev` to begin with.
//
// It is the only place that wires. A command is a file, and a function of the [app] that returns its
// cobra.Command: root.go lists them. A command
//
//   - finds the server with app.client, and prints with [printOne] and [printList]: data on stdout, talk
//     (app.say, app.progress) on stderr;
//   - returns an error; its exit code is 1 unless [exitCode] knows it better, which it does for
//     what the server said ([apiError]), for [usageErrorf] and [brokenErrorf].
//
// Exit codes: 0 ok, 1 error, 2 usage, 3 not found, 4 conflict, 5 unavailable, 6 an invariant is broken.
package main
