// Package importer brings PaySim's files into a running remit, over its API.
//
//	file ──▶ rows ──▶ graph ──▶ ready ──▶ streams (payments:batch) ──▶ finished
//	                    │ ▲                                              │
//	                    │ └── openings (accounts, deposits) ◀── openers   │
//	                    └◀──────────── what waited for them ◀────────────┘
//
// A row starts when every earlier row that shares an account with it is settled or refused, and the accounts that are
// first seen in it are open; rows that share none run side by side.
//
// # Guarantees
//
// I1: the outcome of every row is that of the rows taken one by one in the order of the file. I2: importing a file
// again changes nothing, wherever the import before it ended: ids are made of the file's name and the line. I3: an amount
// is taken exactly as it stands, or its row is rejected. I4: what is in memory at once is bounded by Options.WindowMax rows
// and by the names of the accounts seen, not by the file.
//
// Not promised: that rows of two files imported at once wait for each other.
package importer
