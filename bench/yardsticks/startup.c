// startup ROUNDS COMMAND...: runs the commands in turns, their words divided by spaces,
// with no output. Prints for each, over all rounds: the median wall time and the least CPU
// time in nanoseconds, the median ratio of wall times to that of the first command in the
// same round, the ratio of the least CPU times, and the most memory in KiB.
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

enum { WALL, CPU, RATIO, FIGURES };

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static double nanoseconds(struct timeval t) { return t.tv_sec * 1e9 + t.tv_usec * 1e3; }

static char **words(char *command) {
	char **argv = calloc(strlen(command) + 1, sizeof *argv);
	int n = 0;
	for (char *word = strtok(command, " "); word; word = strtok(NULL, " "))
		argv[n++] = word;
	return argv;
}

static int ascending(const void *a, const void *b) {
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

int main(int argc, char **argv) {
	if (argc < 3)
		errx(2, "usage: startup ROUNDS COMMAND...");
	int rounds = atoi(argv[1]), n = argc - 2;
	char ***commands = calloc(n, sizeof *commands);
	double(*figures)[FIGURES][rounds] = calloc(n, sizeof *figures);
	long *rss = calloc(n, sizeof *rss);
	for (int i = 0; i < n; i++)
		commands[i] = words(argv[2 + i]);
	posix_spawn_file_actions_t quiet;
	posix_spawn_file_actions_init(&quiet);
	for (int fd = 1; fd <= 2; fd++)
		posix_spawn_file_actions_addopen(&quiet, fd, "/dev/null", O_WRONLY, 0);
	for (int round = -1; round < rounds; round++) { // the first warms the cache
		for (int i = 0; i < n; i++) {
			pid_t pid;
			int status;
			struct rusage u;
			double start = now();
			if ((errno = posix_spawnp(&pid, commands[i][0], &quiet, NULL, commands[i], environ)))
				err(1, "%s", commands[i][0]);
			if (wait4(pid, &status, 0, &u) < 0)
				err(1, "wait4");
			double wall = now() - start, cpu = nanoseconds(u.ru_utime) + nanoseconds(u.ru_stime);
			if (!WIFEXITED(status) || WEXITSTATUS(status) > 1) // 1: a checkpoint does not fit
				errx(1, "%s: wait status %#x", commands[i][0], status);
			if (round < 0)
				continue;
			figures[i][WALL][round] = wall;
			figures[i][CPU][round] = cpu;
			figures[i][RATIO][round] = wall / figures[0][WALL][round];
			if (u.ru_maxrss > rss[i])
				rss[i] = u.ru_maxrss;
		}
	}
	for (int i = 0; i < n; i++) {
		for (int f = 0; f < FIGURES; f++)
			qsort(figures[i][f], rounds, sizeof(double), ascending);
		printf("%.0f %.0f %.3f %.3f %ld\n", figures[i][WALL][rounds / 2], figures[i][CPU][0], figures[i][RATIO][rounds / 2],
		       figures[i][CPU][0] / figures[0][CPU][0], rss[i]);
	}
}
