// lazycall: an ordinary dynamic program that will call library functions for
// the first time when it is told to.
//
//   lazycall STATUS GO [THREADS [more|keep]]
//
// Ten times a second it appends a line to the file STATUS,
//
//   tick N pid P OK 1/1
//   tick N pid P BAD 0/1 LOST:strtol
//
// with only system calls that its first tick has bound. Once the file GO
// exists, each tick also calls one function that was never called before, and
// copies memory in blocks of many sizes, until all were called. Further threads
// copy memory then, too. With a further word it calls strspn, and with keep strrchr
// through a pointer that it has kept since its start. The first call
// of a lazily bound function saves the vector registers with the instruction that glibc chose
// when the program started (XSAVEC, XSAVE or FXSAVE, _dl_runtime_resolve_* in
// sysdeps/x86_64/dl-trampoline.S), and memcpy is the variant that it chose
// then: on a CPU without these the program dies of SIGILL. Started with
// GLIBC_TUNABLES=glibc.cpu.hwcaps=-XSAVEC,-XSAVE,-AVX_Fast_Unaligned_Load
// it chooses neither XSAVE nor AVX, and lives, if it started on an Intel CPU; on
// one of AMD's it then chooses memmove with SSSE3, unless -SSSE3 is there too.
// Functions for which glibc chooses SSE4.2 (strcmp, strspn) are left out without that
// word: it is another thing for a CPU to lack.
//
// The resolver's buffer for XSAVE has the size that was right where the program
// started. Where XSAVE writes more, that goes over the stack of the caller. Each
// function is called with nothing but a pattern there. If that changes, the line
// says LOST:stack, and so do all that follow: the program makes no more calls.
//
// Built with -fno-builtin -Wl,-z,lazy, else the compiler or the linker spare
// the calls.
#include <ctype.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static char line[256];
static int len;

static void put(const char *s)
{
	while (*s && len < (int)sizeof line)
		line[len++] = *s++;
}

static void put_num(unsigned long v)
{
	char d[24], *p = d + sizeof d - 1;
	*p = 0;
	do
		*--p = '0' + v % 10;
	while (v /= 10);
	put(p);
}

static int by_value(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

static int call_strtol(void) { return strtol("-42x", NULL, 10) == -42; }
static int call_strtoul(void) { return strtoul("0x10", NULL, 16) == 16; }
static int call_strtod(void) { return strtod("1.5", NULL) == 1.5; }
static int call_strlen(void) { return strlen("abcdefghijklmnopqrstuvwxyz0123456789") == 36; }
static int call_strchr(void) { const char *s = "some longer text, some more"; return strchr(s, ',') == s + 16; }
static int call_memchr(void) { const char *s = "some longer text, some more"; return memchr(s, ',', 27) == s + 16; }
static int call_strstr(void) { const char *s = "one two three"; return strstr(s, "three") == s + 8; }
static int call_toupper(void) { return toupper('a') == 'A'; }
static int call_abs(void) { return labs(-7) == 7; }
static int call_snprintf(void)
{
	char b[64];
	return snprintf(b, sizeof b, "%d %s %.2f", 7, "seven", 7.0) == 12 && b[9] == '.';
}
static int call_qsort(void)
{
	int v[] = { 5, 3, 9, 1 };
	qsort(v, 4, sizeof v[0], by_value);
	return v[0] == 1 && v[3] == 9;
}
static int call_bsearch(void)
{
	static const int v[] = { 1, 3, 5, 9 };
	int want = 5;
	return bsearch(&want, v, 4, sizeof v[0], by_value) == &v[2];
}
static int call_malloc(void)
{
	char *p = malloc(1000);
	int ok = p != NULL;
	free(p);
	return ok;
}

static int more;
static int call_strspn(void) { return !more || strspn("1234567890-7", "0123456789") == 10; }
static char *(*volatile kept)(const char *, int);
static int call_kept(void) { const char *s = "some longer text, some, more"; return !kept || kept(s, ',') == s + 22; }

static const struct {
	const char *name;
	int (*call)(void);
} calls[] = {
	{ "strtol", call_strtol }, { "strtoul", call_strtoul }, { "strtod", call_strtod }, { "qsort", call_qsort },
	{ "bsearch", call_bsearch }, { "snprintf", call_snprintf }, { "strlen", call_strlen }, { "strchr", call_strchr },
	{ "memchr", call_memchr }, { "strstr", call_strstr }, { "toupper", call_toupper },
	{ "labs", call_abs }, { "malloc", call_malloc }, { "strspn", call_strspn },
	{ "kept", call_kept },
};

// copy moves blocks of many sizes, overlapping and not.
static int copy(void)
{
	static __thread unsigned char from[1 << 16], to[1 << 16];
	static const int sizes[] = { 1, 7, 15, 16, 31, 32, 33, 64, 100, 128, 255, 256, 512, 1000, 4096, 20000, 60000 };
	for (int i = 0; i < (int)sizeof from; i++)
		from[i] = i * 7 + (i >> 8);
	for (int s = 0; s < (int)(sizeof sizes / sizeof sizes[0]); s++) {
		int n = sizes[s];
		memset(to, 0, sizeof to);
		memcpy(to + s, from, n);
		for (int i = 0; i < n; i++)
			if (to[s + i] != from[i])
				return 0;
		memmove(to + s + 3, to + s, n);
		for (int i = 0; i < n; i++)
			if (to[s + 3 + i] != from[i])
				return 0;
	}
	return 1;
}

// guarded makes a call with a pattern above it on the stack, and returns what
// is not as it should be. Between the resolver's buffer and the pattern are return
// addresses and no other frame's data. The pattern is aligned as the buffer is: of
// what XSAVE then writes behind the buffers of glibc 2.36 and 2.41, which differ in
// size, BNDREGS falls into the pattern and spares the return addresses.
static __attribute__((noinline)) const char *guarded(unsigned n)
{
	volatile unsigned char guard[4096] __attribute__((aligned(64)));
	for (unsigned i = 0; i < sizeof guard; i++)
		guard[i] = 0x5a;
	int ok = calls[n].call();
	for (unsigned i = 0; i < sizeof guard; i++)
		if (guard[i] != 0x5a)
			return "stack";
	return ok ? NULL : calls[n].name;
}

static const struct timespec interval = { 0, 100 * 1000 * 1000 };
static volatile int told, lost_threads;

static void *further(void *arg)
{
	for (;;) {
		nanosleep(&interval, NULL);
		if (told && !copy()) {
			__atomic_add_fetch(&lost_threads, 1, __ATOMIC_SEQ_CST);
			return arg;
		}
	}
}

int main(int argc, char **argv)
{
	if (argc < 3)
		_exit(2);
	more = argc > 4;
	if (more && argv[4][0] == 'k')
		kept = strrchr;
	int threads = argc > 3 ? argv[3][0] - '0' : 1;
	pthread_t t;
	for (int i = 1; i < threads; i++)
		if (pthread_create(&t, NULL, further, NULL))
			_exit(3);
	unsigned next = 0;
	const char *lost = NULL;
	for (unsigned long n = 1;; n++) {
		if (!lost && next < sizeof calls / sizeof calls[0] && access(argv[2], F_OK) == 0) {
			told = 1;
			lost = guarded(next++);
			if (!lost && !copy())
				lost = "memcpy";
		}
		len = 0;
		put("tick ");
		put_num(n);
		put(" pid ");
		put_num(getpid());
		int good = threads - lost_threads - (lost != NULL);
		put(good < threads ? " BAD " : " OK ");
		put_num(good);
		put("/");
		put_num(threads);
		if (good < threads) {
			put(" LOST:");
			put(lost ? lost : "thread");
		}
		put("\n");
		int fd = open(argv[1], O_WRONLY | O_CREAT | O_APPEND, 0644);
		if (fd < 0 || write(fd, line, len) != len)
			_exit(6);
		close(fd);
		nanosleep(&interval, NULL);
	}
}
