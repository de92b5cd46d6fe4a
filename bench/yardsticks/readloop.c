// readloop [-p READERS] DIR...: opens, reads and closes every core image of the
// directories, the least that a program has to do which reads them. With -p so many
// processes share the files.
#define _GNU_SOURCE
#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int readers = 1;

static void read_images(const char *path, int reader) {
	static char buf[1 << 20];
	int nth = 0, dir = open(path, O_RDONLY | O_DIRECTORY);
	DIR *list = dir < 0 ? NULL : fdopendir(dir);
	if (!list)
		err(1, "%s", path);
	for (struct dirent *e; (e = readdir(list));) {
		if (strncmp(e->d_name, "core-", 5) || nth++ % readers != reader)
			continue;
		int fd = openat(dir, e->d_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
		if (fd < 0 || read(fd, buf, sizeof buf) < 0)
			err(1, "%s/%s", path, e->d_name);
		close(fd);
	}
	closedir(list);
}

int main(int argc, char **argv) {
	for (int option; (option = getopt(argc, argv, "p:")) > 0;) {
		if (option != 'p' || (readers = atoi(optarg)) < 1)
			errx(2, "usage: readloop [-p READERS] DIR...");
	}
	int reader = 0;
	for (int i = 1; i < readers && !reader; i++) {
		pid_t pid = fork();
		if (pid < 0)
			err(1, "fork");
		if (pid == 0)
			reader = i;
	}
	for (int i = optind; i < argc; i++)
		read_images(argv[i], reader);
	int status, bad = 0;
	while (reader == 0 && wait(&status) > 0)
		bad |= status;
	return bad != 0;
}
