# What the steps of a guest share: functions around CRIU and the test programs.
# A program here is a session whose leader is process PID, and that appends
# lines "tick N pid P ..." to a status file about ten times a second. All of it
# works with and without "set -e".

# start PID STATUS COMMAND...: starts a program as process PID, and returns
# when it writes. Give each program its own PID, well above what the guest
# hands out itself: the checkpoint needs it free again where it is restored.
start() {
	_pid=$1 _status=$2
	shift 2
	rm -f "$_status"
	_last=$(cat /proc/sys/kernel/ns_last_pid)
	echo $((_pid - 1)) >/proc/sys/kernel/ns_last_pid
	setsid "$@" </dev/null >/dev/null 2>&1 &
	_got=$!
	[ "$_got" = "$_pid" ] || { echo "start: $1 is process $_got, not $_pid" >&2; return 1; }
	until tick "$_pid" "$_status" && [ -s "$_status" ]; do
		alive "$_pid" || { echo "start: $1 ended at once" >&2; return 1; }
		sleep 0.1
	done
	# Its threads and children have their pids; the steps go on where they were.
	echo "$_last" >/proc/sys/kernel/ns_last_pid
}

# pids PID: the program's processes. Fields of /proc/PID/stat behind the name
# in parentheses: state, parent, group, session.
pids() {
	cat /proc/[0-9]*/stat 2>/dev/null | awk -v session="$1" '
		{ pid = $1; sub(/^.*\) /, ""); if ($4 == session && $1 !~ /[ZX]/) print pid }'
}

# tick PID STATUS: writes the lines of a program that writes none itself, if it answers
# as the command $PROBE wants. Any other program writes its own.
tick() {
	[ "$PROBE" ] || return 0
	eval "$PROBE" || return 1
	_lines=$(cat "$2" 2>/dev/null | wc -l)
	for _p in $(pids "$1"); do echo "tick $((_lines + 1)) pid $_p OK 1/1"; done >>"$2"
}

# alive PID: whether there is such a process and it is not a zombie.
alive() {
	case $(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null) in
	'' | Z* | X*) return 1 ;;
	esac
}

# await N STATUS PID: waits until each process of the program has written N more
# lines, then prints the last line of each, by pid. Fails if process PID is
# gone or gives a wrong answer, and prints what there is all the same.
await() {
	_n=$1 _status=$2 _pid=$3
	_from=$(($(cat "$_status" 2>/dev/null | wc -l) + 1))
	_rc=0 _left=yes
	while [ "$_left" ]; do
		_left=
		tick "$_pid" "$_status" || { echo "await: process $_pid does not answer" >&2; _rc=1; break; }
		for _p in $(pids "$_pid"); do
			[ "$(tail -n +$_from "$_status" 2>/dev/null | grep -c " pid $_p ")" -ge "$_n" ] || _left=$_p
		done
		alive "$_pid" || { echo "await: process $_pid is gone" >&2; _rc=1; break; }
		[ -z "$_left" ] || sleep 0.1
	done
	tail -n +$_from "$_status" 2>/dev/null | awk '{ last[$4] = $0 } END { for (p in last) print last[p] }' | sort -k 4n
	return $_rc
}

# dump PID DIR [OPTION...]: has CRIU checkpoint the program into DIR, and ends it.
# Its log is DIR/dump.log; the errors in it go to stderr. A checkpoint of a moment
# when the status file is open needs that file where it is restored: the program,
# left stopped as it was dumped, shows whether it is, and is then dumped again.
dump() {
	_pid=$1 _dir=$2
	shift 2
	mkdir -p "$_dir"
	while :; do
		_rc=0
		criu dump -t "$_pid" -D "$_dir" -o dump.log -v4 --leave-stopped "$@" || _rc=$?
		[ $_rc = 0 ] || { grep Error "$_dir/dump.log" >&2; return $_rc; }
		opened "$_pid" || break
		echo "dump: process $_pid had a file open, dumped again" >&2
		rm -f "$_dir"/*.img
		kill -CONT "-$_pid"
	done
	stop "$_pid"
}

# opened PID: whether a process of the program has a file in /tmp open.
opened() {
	for _p in $(pids "$1"); do
		ls -l "/proc/$_p/fd" | grep -q ' -> .*/tmp/' && return
	done
	return 1
}

# restore DIR LOG [OPTION...]: has CRIU restore the checkpoint in DIR, and moves
# its log to the file LOG; the errors in it go to stderr. DIR is only read.
restore() {
	_dir=$1 _log=$2
	shift 2
	_work=$(mktemp -d)
	_rc=0
	criu restore -d -D "$_dir" -W "$_work" -o restore.log -v4 "$@" || _rc=$?
	mv "$_work/restore.log" "$_log" && rm -rf "$_work"
	[ $_rc = 0 ] || { grep Error "$_log" >&2; return $_rc; }
}

# stop PID: ends the program and waits until its processes are gone.
stop() {
	kill -9 "-$1" 2>/dev/null || return 0 # nothing left
	while kill -0 "-$1" 2>/dev/null; do sleep 0.1; done
}
