// Target is the program of package testtarget.
package main

import (
	"runtime"

	testtarget "github.com/fpuimg/fpuimg/internal/test/target"
)

// The main goroutine stays on the main thread: the processes die with it.
func init() { runtime.LockOSThread() }

func main() { testtarget.Main() }
