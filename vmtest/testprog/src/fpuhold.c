// fpuhold: holds known values in the FPU registers and says whether they are
// still there.
//
//   fpuhold [-b] [-s GO] MODE STATUS [THREADS [PROCESSES]]
//
// It loads a pattern into the registers of every thread, then checks them ten
// times a second and appends to the file STATUS, per process,
//
//   tick N pid P OK 8/8
//   tick N pid P BAD 7/8 LOST:xmm3,3/fcw
//
// where n/n counts the threads whose registers all hold, and LOST names the
// registers that do not, those of thread T > 0 as T/name. A component that was
// loaded and that the CPU it now runs on has not got is named as a whole, by
// the kernel's name (LOST:AVX). A component that was not loaded must be in its
// INIT state, wherever it now runs; except PKRU, which Linux sets.
//
// MODE is
//   init   nothing loaded: x87 and SSE must be in their INIT state
//   sse    x87 with its control words, XMM, MXCSR
//   auto   all that the CPU has, save MPX: opening its bounds is the one thing
//          that CRIU is known to lose
//   pkru   sse and PKRU
//   mpx    auto and the MPX bounds
//   erased what auto loads, but all of it must be in its INIT state: nothing
//          holds until something takes the values away
// It fails with exit status 3 if the CPU lacks what the mode is named after.
// With -b (blind) it uses the extended instructions of the CPU it started on,
// as a program does that asks once at its start: where they are gone, it dies
// of SIGILL. With -s (signal) the first thread is in a signal handler from the moment
// when it has loaded its registers until the file GO exists: they lie in the frame
// that the kernel put on the stack. The lines until then say OK and nothing else.
//
// There is no libc: glibc picks AVX code at start and would itself not survive
// what is tested. The compiler is told to leave the FPU alone, so between two
// checks nothing touches the registers but kernel and CRIU. No file is open
// between ticks: a checkpoint of such a moment needs nothing but STATUS's directory.
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

enum { // arch/x86/entry/syscalls/syscall_64.tbl
	SYS_write = 1, SYS_open = 2, SYS_close = 3, SYS_rt_sigaction = 13, SYS_access = 21,
	SYS_nanosleep = 35, SYS_getpid = 39, SYS_clone = 56, SYS_fork = 57, SYS_kill = 62,
	SYS_exit_group = 231,
};

static long call4(long nr, long a, long b, long c, long d)
{
	long r;
	register long r10 __asm__("r10") = d;
	__asm__ volatile("syscall" : "=a"(r) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
	return r;
}

static long call3(long nr, long a, long b, long c) { return call4(nr, a, b, c, 0); }

static void quit(int status)
{
	for (;;)
		call3(SYS_exit_group, status, 0, 0);
}

static void nap(long ms)
{
	struct { long sec, nsec; } t = { 0, ms * 1000000 };
	call3(SYS_nanosleep, (long)&t, 0, 0);
}

// ---- text ----

struct text {
	u32 n;
	char b[1024];
};

static void put(struct text *t, const char *s)
{
	while (*s && t->n < sizeof t->b)
		t->b[t->n++] = *s++;
}

static void put_num(struct text *t, u32 v)
{
	char d[11];
	int i = sizeof d - 1;
	d[i] = 0;
	do
		d[--i] = '0' + v % 10;
	while (v /= 10);
	put(t, d + i);
}

static int equal(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

static u32 number(const char *s)
{
	u32 v = 0;
	while (*s >= '0' && *s <= '9')
		v = v * 10 + (*s++ - '0');
	return v;
}

// ---- the CPU ----

enum { X87 = 1 << 0, SSE = 1 << 1, AVX = 1 << 2, BNDREGS = 1 << 3, BNDCSR = 1 << 4, PKRU = 1 << 9 };

// The extended components this program knows, by bit in XCR0 (SDM vol. 1,
// 13.1), with the registers they hold.
static const struct component {
	u32 bit, count, size; // count registers of size bytes
	const char *name, *reg;
	u32 first; // number of the first register
} components[] = {
	{ 2, 16, 16, "AVX", "ymm", 0 }, // the upper halves
	{ 3, 4, 16, "BNDREGS", "bnd", 0 },
	{ 4, 2, 8, "BNDCSR", "bndcsr", 0 },
	{ 5, 8, 8, "opmask", "k", 0 },
	{ 6, 16, 32, "ZMM_Hi256", "zmm", 0 },
	{ 7, 16, 64, "Hi16_ZMM", "zmm", 16 },
	{ 9, 1, 4, "PKRU", "pkru", 0 },
};
enum { NCOMPONENTS = sizeof components / sizeof components[0] };

static void cpuid(u32 leaf, u32 sub, u32 r[4])
{
	__asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(sub));
}

// A thread's XSAVE area, large enough for all components above in every known
// layout. Zero where nothing writes.
struct area {
	u8 b[4096];
} __attribute__((aligned(64)));

// usable returns the components of the CPU we run on right now that the kernel
// has enabled and that this program knows.
static u32 usable(void)
{
	u32 r[4], lo, hi, mask = X87 | SSE;
	cpuid(1, 0, r);
	if (!(r[2] >> 27 & 1)) // OSXSAVE
		return mask;
	__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	for (u32 i = 0; i < NCOMPONENTS; i++)
		if (lo >> components[i].bit & 1)
			mask |= 1u << components[i].bit;
	return mask;
}

// offset returns where a component lies in the standard format, 0 if the CPU
// we run on right now has no such component.
static u32 offset(const struct component *c)
{
	u32 r[4];
	cpuid(13, c->bit, r);
	if (r[1] + r[0] > sizeof(struct area))
		quit(4);
	return r[1];
}

static void fxsave(struct area *a) { __asm__ volatile("fxsave64 %0" : "=m"(*a)); }
static void fxrstor(const struct area *a) { __asm__ volatile("fxrstor64 %0" ::"m"(*a)); }
static void xsave(struct area *a, u32 mask) { __asm__ volatile("xsave64 %0" : "+m"(*a) : "a"(mask), "d"(0)); }
static void xrstor(const struct area *a, u32 mask) { __asm__ volatile("xrstor64 %0" ::"m"(*a), "a"(mask), "d"(0) : "memory"); }

// ---- the pattern ----

static u8 hash(u32 x)
{
	x = (x ^ x >> 16) * 0x7feb352d;
	x = (x ^ x >> 15) * 0x846ca68b;
	return x ^ x >> 16;
}

// pattern is byte i of register r of a component (0 and 1: x87 and SSE) in
// thread t of process p. Its first byte is never zero, so that no register
// equals INIT.
static u8 pattern(u32 p, u32 t, u32 bit, u32 r, u32 i)
{
	u8 h = hash(p << 28 | t << 20 | bit << 14 | r << 7 | i);
	return i || h ? h : 0xa5;
}

static void store(u8 *to, u64 v, u32 n)
{
	for (u32 i = 0; i < n; i++)
		to[i] = v >> 8 * i;
}

static u64 fetch(const u8 *from, u32 n)
{
	u64 v = 0;
	while (n--)
		v = v << 8 | from[n];
	return v;
}

// Offsets in the legacy area: SDM vol. 1, table 10-2.
enum { FCW = 0, FSW = 2, FTW = 4, MXCSR = 24, ST = 32, XMM = 160, XSTATE_BV = 512 };

static void fill_legacy(u8 *b, u32 p, u32 t)
{
	// All exceptions masked, precision and rounding by thread. Precision 1 is
	// reserved.
	static const u8 precision[3] = { 0, 2, 3 };
	store(b + FCW, 0x7f | precision[t % 3] << 8 | (t + 3) % 4 << 10, 2);
	// TOP by thread; condition codes C0, C2 and the exceptions PE and ZE, which
	// as masked ones do not set the error summary.
	store(b + FSW, (t + 5) % 8 << 11 | 0x500 | 0x24, 2);
	// One physical register empty, by thread (abridged: a bit is "valid").
	b[FTW] = 0xff & ~(1u << t % 8);
	// Masked, rounding by thread, flush to zero, PE and IE. No DAZ: old CPUs
	// lack it.
	store(b + MXCSR, 0x1f80 | ((t + 1) % 4) << 13 | 0x8000 | 0x21, 4);
	for (u32 r = 0; r < 8; r++) {
		u8 *st = b + ST + 16 * r;
		for (u32 i = 0; i < 8; i++)
			st[i] = pattern(p, t, 0, r, i);
		st[7] |= 0x80; // normal numbers only
		store(st + 8, (0x3ff0 + 3 * r + t % 64) | (r & 1) << 15, 2);
	}
	for (u32 r = 0; r < 16; r++)
		for (u32 i = 0; i < 16; i++)
			b[XMM + 16 * r + i] = pattern(p, t, 1, r, i);
}

// The INIT state is not all zeros: SDM vol. 1, 13.6.
static void init_legacy(u8 *b)
{
	for (u32 i = 0; i < 512; i++)
		b[i] = 0;
	store(b + FCW, 0x37f, 2);
	store(b + MXCSR, 0x1f80, 4);
}

// fill_component writes the pattern of one extended component.
static void fill_component(u8 *b, const struct component *c, u32 p, u32 t)
{
	for (u32 r = 0; r < c->count; r++)
		for (u32 i = 0; i < c->size; i++)
			b[r * c->size + i] = pattern(p, t, c->bit, r, i);
	switch (1u << c->bit) {
	case BNDREGS:
		// Lower bound, then the upper one's complement.
		for (u32 r = 0; r < 4; r++) {
			store(b + 16 * r, 0x100000 + 0x1000 * r + 0x10 * t, 8);
			store(b + 16 * r + 8, ~(u64)(0x200000 + 0x1000 * r + 0x10 * t), 8);
		}
		break;
	case BNDCSR:
		// BNDCFGU: on, and branches preserve the bounds, else each branch of
		// this program would clear them. BNDSTATUS: nothing.
		store(b, 3, 8);
		store(b + 8, 0, 8);
		break;
	case PKRU:
		// Key 0 open: it is the one of all our memory. The others differ from
		// Linux's 0x55555554 in a few bits, by thread.
		store(b, 0x55555554u ^ ((t % 200 + 1 + p) << 8), 4);
		break;
	}
}

// ---- threads ----

enum { MAX_THREADS = 64, STACK = 8192 };

static u32 loaded; // components that hold a pattern
static int pristine; // modes init and erased: what is checked is INIT
static int erased; // mode erased
static int blind;
static u32 started_with; // usable at start
static u32 process; // 0 is the one that was started
static u32 nthreads = 1;

static struct area areas[MAX_THREADS][2]; // per thread: what is, what should be
static u8 stacks[MAX_THREADS][STACK] __attribute__((aligned(64)));
static struct report {
	volatile u32 round; // the last one checked
	volatile int ok;
	struct text lost;
} reports[MAX_THREADS];
static volatile u32 round_now; // what the workers are to check for
static int in_handler; // whose own registers are nobody's business

static void load(u32 t)
{
	struct area *a = &areas[t][1];
	if (pristine && !erased)
		return;
	fill_legacy(a->b, process, t);
	if (loaded == (X87 | SSE)) {
		fxrstor(a);
		return;
	}
	for (u32 i = 0; i < NCOMPONENTS; i++)
		if (loaded >> components[i].bit & 1)
			fill_component(a->b + offset(&components[i]), &components[i], process, t);
	store(a->b + XSTATE_BV, loaded, 8);
	xrstor(a, loaded);
}

static void lose(struct text *lost, u32 t, const char *name, int number)
{
	if (lost->n > 400) // enough to tell, and the line stays one write
		return;
	put(lost, lost->n ? "," : "");
	if (t) {
		put_num(lost, t);
		put(lost, "/");
	}
	put(lost, name);
	if (number >= 0)
		put_num(lost, number);
}

static int differs(const u8 *a, const u8 *b, u32 n)
{
	for (u32 i = 0; i < n; i++)
		if (a[i] != b[i])
			return 1;
	return 0;
}

static void check_legacy(const u8 *is, const u8 *want, u32 t, struct text *lost)
{
	if (fetch(is + FCW, 2) != fetch(want + FCW, 2))
		lose(lost, t, "fcw", -1);
	if (fetch(is + FSW, 2) != fetch(want + FSW, 2))
		lose(lost, t, "fsw", -1);
	if (is[FTW] != want[FTW])
		lose(lost, t, "ftw", -1);
	if (fetch(is + MXCSR, 4) != fetch(want + MXCSR, 4))
		lose(lost, t, "mxcsr", -1);
	u32 top = want[FSW + 1] >> 3 & 7;
	for (u32 r = 0; r < 8; r++)
		// Tags are by physical register, ST(r) is relative to TOP. What an
		// empty register holds is nobody's business.
		if (want[FTW] >> (top + r) % 8 & 1 && differs(is + ST + 16 * r, want + ST + 16 * r, 10))
			lose(lost, t, "st", r);
	for (u32 r = 0; r < 16; r++)
		if (differs(is + XMM + 16 * r, want + XMM + 16 * r, 16))
			lose(lost, t, "xmm", r);
}

static void check_component(const struct component *c, u32 have, u32 t, struct area *now, struct area *want, struct text *lost)
{
	u32 held = !pristine && loaded >> c->bit & 1, at = have >> c->bit & 1 ? offset(c) : 0;
	if (!at) {
		if (held)
			lose(lost, t, c->name, -1);
		return;
	}
	if (!held && 1u << c->bit == PKRU)
		return;
	const u8 *is = now->b + at;
	u8 *should = want->b; // what was loaded from it is not needed any more
	for (u32 i = 0; i < c->count * c->size; i++)
		should[i] = 0;
	if (held)
		fill_component(should, c, process, t);
	// A clear bit in XSTATE_BV is INIT, whatever the bytes say.
	int init = !(now->b[XSTATE_BV + c->bit / 8] >> c->bit % 8 & 1);
	for (u32 r = 0; r < c->count; r++) {
		int bad = 0;
		for (u32 i = 0; i < c->size; i++)
			bad |= should[r * c->size + i] != (init ? 0 : is[r * c->size + i]);
		if (bad)
			lose(lost, t, c->reg, c->count > 1 ? (int)(c->first + r) : -1);
	}
}

// check compares the registers of the calling thread with what they are to be.
static void check(u32 t, u32 round)
{
	struct area *now = &areas[t][0], *want = &areas[t][1];
	struct report *rep = &reports[t];
	u32 have = blind ? started_with : usable();
	rep->lost.n = 0;
	fxsave(now);
	if (pristine)
		init_legacy(want->b);
	else
		fill_legacy(want->b, process, t);
	check_legacy(now->b, want->b, t, &rep->lost);
	u32 extended = have & ~(X87 | SSE);
	if (extended) {
		for (u32 i = 512; i < sizeof now->b; i++)
			now->b[i] = 0;
		xsave(now, extended);
	}
	for (u32 i = 0; i < NCOMPONENTS; i++)
		check_component(&components[i], have, t, now, want, &rep->lost);
	rep->ok = !rep->lost.n;
	rep->round = round; // last: the first thread reads the rest when it sees this
}

static void worker(u32 t)
{
	load(t);
	for (;;) {
		u32 round = round_now;
		if (reports[t].round != round)
			check(t, round);
		nap(20);
	}
}

// spawn starts worker(t) as a thread of this process. The child begins on its
// own stack behind the system call, so it cannot return through C.
static void spawn(u32 t)
{
	enum { VM = 0x100, FS = 0x200, FILES = 0x400, SIGHAND = 0x800, THREAD = 0x10000, SYSVSEM = 0x40000 };
	u64 *sp = (u64 *)(stacks[t] + STACK);
	*--sp = 0;
	*--sp = t;
	*--sp = (u64)worker;
	long r;
	register long none10 __asm__("r10") = 0, none8 __asm__("r8") = 0;
	__asm__ volatile("syscall\n\t"
			 "test %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "xor %%ebp, %%ebp\n\t"
			 "pop %%rax\n\t"
			 "pop %%rdi\n\t"
			 "call *%%rax\n\t"
			 "hlt\n"
			 "1:"
			 : "=a"(r)
			 : "a"(SYS_clone), "D"(VM | FS | FILES | SIGHAND | THREAD | SYSVSEM), "S"(sp), "d"(0), "r"(none10), "r"(none8)
			 : "rcx", "r11", "memory");
	if (r < 0)
		quit(5);
}

// tick checks all threads and appends one line to the status file.
static void tick(const char *status, u32 n)
{
	struct text line = { 0 };
	u32 good = 0, lost = 0;
	round_now = n;
	if (in_handler)
		reports[0].ok = 1, reports[0].round = n;
	else
		check(0, n);
	for (u32 t = 1; t < nthreads; t++)
		// Ten seconds is a thread that does not run any more.
		for (u32 i = 0; reports[t].round != n && i < 1000; i++)
			nap(10);
	for (u32 t = 0; t < nthreads; t++)
		good += reports[t].round == n && reports[t].ok;
	put(&line, "tick ");
	put_num(&line, n);
	put(&line, " pid ");
	put_num(&line, call3(SYS_getpid, 0, 0, 0));
	put(&line, good == nthreads ? " OK " : " BAD ");
	put_num(&line, good);
	put(&line, "/");
	put_num(&line, nthreads);
	for (u32 t = 0; t < nthreads; t++) {
		struct report *r = &reports[t];
		int gone = r->round != n;
		if (!gone && r->ok)
			continue;
		if (line.n > 500)
			break;
		put(&line, lost++ ? "," : " LOST:");
		if (gone) {
			put(&line, "thread");
			put_num(&line, t);
			continue;
		}
		r->lost.b[r->lost.n] = 0;
		put(&line, r->lost.b);
	}
	put(&line, "\n");
	enum { WRONLY = 1, CREAT = 0100, APPEND = 02000 };
	long fd = call3(SYS_open, (long)status, WRONLY | CREAT | APPEND, 0644);
	if (fd < 0)
		quit(6);
	call3(SYS_write, fd, (long)line.b, line.n);
	call3(SYS_close, fd, 0, 0);
}

// ---- the signal ----

static const char *status_path, *go;
static u32 ticks;

static void handler(int signal)
{
	(void)signal;
	in_handler = 1;
	while (call3(SYS_access, (long)go, 0, 0) != 0) {
		tick(status_path, ++ticks);
		nap(100);
	}
	in_handler = 0;
}

// restorer is where the handler returns to: rt_sigreturn, as every libc writes it.
void restorer(void);
__asm__("restorer:\n\t"
	"mov $15, %rax\n\t"
	"syscall");

static void interrupt(void)
{
	enum { SIGUSR1 = 10, SA_RESTORER = 0x04000000 };
	struct { void (*handler)(int); u64 flags; void (*restorer)(void); u64 mask; } act = { handler, SA_RESTORER, restorer, 0 };
	call4(SYS_rt_sigaction, SIGUSR1, (long)&act, 0, sizeof act.mask);
	call3(SYS_kill, call3(SYS_getpid, 0, 0, 0), SIGUSR1, 0);
}

__attribute__((used)) void start(long *sp)
{
	long argc = sp[0];
	char **arg = (char **)(sp + 1) + 1;
	if (argc > 1 && equal(*arg, "-b"))
		blind = 1, arg++, argc--;
	if (argc > 2 && equal(*arg, "-s"))
		go = arg[1], arg += 2, argc -= 2;
	if (argc < 3 || argc > 5)
		quit(2);
	const char *mode = arg[0];
	status_path = arg[1];
	u32 nprocesses = 1;
	if (argc > 3)
		nthreads = number(arg[2]);
	if (argc > 4)
		nprocesses = number(arg[3]);
	if (nthreads < 1 || nthreads > MAX_THREADS || nprocesses < 1 || nprocesses > 8)
		quit(2);

	started_with = usable();
	u32 bounds = BNDREGS | BNDCSR, wanted = 0;
	if (equal(mode, "init"))
		pristine = 1;
	else if (equal(mode, "sse"))
		loaded = X87 | SSE;
	else if (equal(mode, "auto"))
		loaded = started_with & ~bounds;
	else if (equal(mode, "erased"))
		pristine = erased = 1, loaded = started_with & ~bounds;
	else if (equal(mode, "pkru"))
		wanted = PKRU, loaded = X87 | SSE | PKRU;
	else if (equal(mode, "mpx"))
		wanted = bounds, loaded = started_with;
	else
		quit(2);
	if ((started_with & wanted) != wanted)
		quit(3);

	// The children of the first process; each has its own threads.
	for (u32 p = 1; p < nprocesses; p++)
		if (!call3(SYS_fork, 0, 0, 0)) {
			process = p;
			break;
		}
	// The workers before our own load: a new thread inherits registers, and
	// PKRU, from its creator.
	for (u32 t = 1; t < nthreads; t++)
		spawn(t);
	load(0);
	if (go)
		interrupt();
	for (;;) {
		tick(status_path, ++ticks);
		nap(100);
	}
}

__asm__(".globl _start\n"
	"_start:\n\t"
	"xor %ebp, %ebp\n\t"
	"mov %rsp, %rdi\n\t"
	"and $-16, %rsp\n\t"
	"call start\n\t"
	"hlt\n");
