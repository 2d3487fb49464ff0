// Package lint holds the rules of the repository as tests; it has no code of its
// own.
//
// They are the rules that a compiler and staticcheck do not know: which package may
// import which, that nothing but the registry code reaches the network, that every
// package and every exported name is explained, that files stay small, and how
// errors begin.
package lint
