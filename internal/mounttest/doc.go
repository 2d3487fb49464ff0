// Package mounttest tests layerfs from outside: its tests build the program, load
// images with it, mount the store as root and as an ordinary user, and compare
// what is there with what GNU tar, kernel overlayfs and the shell say.
//
// The tests by file:
//
//	oracle_test.go     every shared image, each path, against kernel overlayfs
//	user_test.go       the same as an ordinary user
//	shell_test.go      cp, tar, grep, diff and the like over a mount
//	synthetic_test.go  images made here: whiteouts, links, 150 layers, odd names …
//	table_test.go      what GNU tar cannot make, against tables
//	odd_test.go        unusual and hostile layers: loaded exactly, or refused
//	damage_test.go     truncated and corrupted archives, bombs
//	hostile_test.go    what tries to take memory, time or disk, with bounds of memory
//	heavy_test.go      the same with a million files, where LAYERFS_TEST_HEAVY is set
//	digests_test.go    wrong digests under every flag of load and pull
//	private_test.go    modes of all files of a store, and what other users may do
//	store_test.go      full disk, read-only store, the same image twice
//	kill_test.go       SIGKILL at any moment of a load
//	soak_test.go       processes that work at random in container and image mounts
//
// Environment, besides that of package testenv:
//
//	LAYERFS_TEST_IMAGES  a directory with more images (NAME.oci.tar, NAME.oci),
//	                     which TestOracle takes too; minutes for large ones
//	LAYERFS_TEST_KILLS   how often TestKillDuringLoad kills; 30 unless set
//	LAYERFS_TEST_SOAK    how long TestSoak works as each account; 5s unless set
//	LAYERFS_TEST_SOAK_KILL  how often TestSoak kills a serving process meanwhile; never
//	                     unless set
package mounttest
