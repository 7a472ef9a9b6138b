// Package clients runs the vendors' own clients in JavaScript, and what is built on them, against llmmock: real programs that do what
// their users do. The programs are the .js files; the tests start the mock, run each program and report each of its checks. Start at
// TestClients.
package clients
