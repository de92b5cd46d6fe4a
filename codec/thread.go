package codec

// Thread is one thread of a checkpoint.
type Thread struct {
	PID  int // 0: unknown, because there is no pstree.img
	TID  int
	Core *Core
}

// NewThread is a thread with its core image, nil if it cannot be read. A leader's image
// tells its process where that is unknown, 0.
func NewThread(pid, tid int, core *Core) Thread {
	if pid == 0 && core != nil && core.Leader {
		pid = tid
	}
	return Thread{PID: pid, TID: tid, Core: core}
}

// Listed is a thread that was decoded already, or why it could not be.
type Listed struct {
	Thread
	Err error
}
