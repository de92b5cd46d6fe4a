// ptracefloor PID: the system calls that a live restore cannot do without, for every
// thread of a process: attach, stop, wait, read, write and read back the XSAVE area, let
// go. Prints the number of threads, and the nanoseconds of all calls and of those from the
// first stop on.
#define _GNU_SOURCE
#include <dirent.h>
#include <elf.h>
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#define XSTATE ((void *)0x202) // NT_X86_XSTATE

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static void call(int request, int tid, void *addr, void *data, const char *what) {
	if (ptrace(request, tid, addr, data) < 0)
		err(1, "%s of thread %d", what, tid);
}

int main(int argc, char **argv) {
	if (argc != 2)
		errx(2, "usage: ptracefloor PID");
	char path[64];
	snprintf(path, sizeof path, "/proc/%.20s/task", argv[1]);
	DIR *list = opendir(path);
	if (!list)
		err(1, "%s", path);
	int n = 0, *tids = NULL;
	for (struct dirent *e; (e = readdir(list));) {
		if (e->d_name[0] == '.')
			continue;
		tids = realloc(tids, (n + 1) * sizeof *tids);
		tids[n++] = atoi(e->d_name);
	}
	static char area[1 << 16] __attribute__((aligned(64))), back[1 << 16];
	double start = now();
	for (int i = 0; i < n; i++)
		call(PTRACE_SEIZE, tids[i], NULL, NULL, "seize");
	double stop = now();
	for (int i = 0; i < n; i++)
		call(PTRACE_INTERRUPT, tids[i], NULL, NULL, "interrupt");
	for (int i = 0; i < n; i++) {
		if (waitpid(tids[i], NULL, __WALL) < 0)
			err(1, "wait for thread %d", tids[i]);
	}
	for (int i = 0; i < n; i++) {
		struct iovec io = {area, sizeof area}, again = {back, sizeof back};
		call(PTRACE_GETREGSET, tids[i], XSTATE, &io, "read");
		call(PTRACE_SETREGSET, tids[i], XSTATE, &io, "write");
		call(PTRACE_GETREGSET, tids[i], XSTATE, &again, "read back");
	}
	for (int i = 0; i < n; i++)
		call(PTRACE_DETACH, tids[i], NULL, NULL, "detach");
	double end = now();
	printf("%d %.0f %.0f\n", n, end - start, end - stop);
}
