package flock

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func want(t *testing.T, what string, ok bool, err error, wanted bool) {
	t.Helper()
	if err != nil || ok != wanted {
		t.Errorf("%s: %v, %v, want %v", what, ok, err, wanted)
	}
}

func TestTry(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	a, b := open(t, path), open(t, path)
	if err := Shared(a); err != nil {
		t.Fatal(err)
	}
	ok, err := TryShared(b)
	want(t, "shared beside shared", ok, err, true)
	ok, err = Try(b)
	want(t, "alone beside shared", ok, err, false)
	a.Close()
	ok, err = Try(b)
	want(t, "alone", ok, err, true)
	c := open(t, path)
	ok, err = TryShared(c)
	want(t, "shared beside alone", ok, err, false)
	b.Close()
	if err := Lock(c); err != nil {
		t.Error(err)
	}
	if _, err := Try(a); err == nil {
		t.Error("a closed file was locked")
	}
}

func TestWait(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	a, b := open(t, path), open(t, path)
	if err := Lock(a); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Wait(ctx, b); !errors.Is(err, context.Canceled) {
		t.Errorf("while somebody has it: %v", err)
	}
	time.AfterFunc(3*pause, func() { a.Close() })
	if err := Wait(t.Context(), b); err != nil {
		t.Error(err)
	}
	if err := Wait(ctx, b); err != nil {
		t.Errorf("when it is free at once: %v", err)
	}
}

func TestTryAt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	f := open(t, path)
	if !TryAt(f, path) || !IsAt(f, path) {
		t.Error("not locked where it is")
	}
	if other := open(t, path); TryAt(other, path) {
		t.Error("locked twice")
	}
	f.Close()
	gone := open(t, path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if TryAt(gone, path) {
		t.Error("locked what was removed")
	}
	open(t, path)
	if TryAt(gone, path) {
		t.Error("locked what was replaced")
	}
}
