// Package faulttest has the tests of what happens to a store when something goes
// wrong below it: a disk that refuses, a disk that is full, a process that is killed, a
// machine whose power fails. After each the store is what it was before the operation or
// what it is after, a check finds nothing, and a collection leaves nothing.
//
// The operations run in a process of their own, a worker: the test can kill it, and
// the file system below it, which the test serves (package faultfs), never waits for
// itself.
//
// Environment:
//
//	LAYERFS_TEST_FAULTS  how many places are tried for each action and each kind of
//	                     trouble, or "all" of them (make test-faults); without it one
//	                     place, and a quarter of the actions
//	LAYERFS_TEST_SEED    the number that random choices begin with; a failure names it
package faulttest
