// sleepers N: a process of N threads that sleep. Prints its number when all are there.
#include <err.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void *sleeper(void *arg) {
	for (;;)
		pause();
	return arg;
}

int main(int argc, char **argv) {
	if (argc != 2)
		errx(2, "usage: sleepers N");
	pthread_attr_t small;
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 1 << 16);
	for (int i = 1; i < atoi(argv[1]); i++) {
		pthread_t t;
		if (pthread_create(&t, &small, sleeper, NULL))
			errx(1, "no thread %d", i);
	}
	printf("%d\n", getpid());
	fflush(stdout);
	sleeper(NULL);
}
