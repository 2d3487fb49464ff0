// Package testenv tells tests what the machine they run on can do.
//
// A test that needs something a machine may lack asks for it by name:
//
//	testenv.Require(t, "fuse", "root")
//
// and is skipped with the reason when it is not there. A continuous integration
// run lists in LAYERFS_TEST_REQUIRE what it promises to have; then the same
// call fails the test, so that nothing is skipped by accident.
//
// Environment:
//
//	LAYERFS_TEST_REQUIRE  names, separated by commas, that must not be skipped
//	LAYERFS_TEST_SHARED   directory with the real images and tars; the default
//	                      is a directory "shared" beside the module's
//	LAYERFS_TEST_USER     the ordinary user that tests run as root switch to;
//	                      the default is layerfs-test
//	CI                    "true": the shared data must not be skipped
package testenv
