package process

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestDying(t *testing.T) {
	if Dying(os.Getpid()) {
		t.Error("this process is said to be dying")
	}
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); !Dying(cmd.Process.Pid); time.Sleep(time.Millisecond) {
		if time.Since(start) > 10*time.Second {
			t.Fatal("a process that nobody has waited for is not said to be dying")
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if Dying(cmd.Process.Pid) {
		t.Error("a process that is gone is said to be dying")
	}
}
