//go:build !race

package tree

// raceEnabled says that the race detector, which needs memory, is in use.
const raceEnabled = false
