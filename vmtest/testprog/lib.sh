# What the steps of a guest share: functions around CRIU and the test programs.
# A program here is a process group whose leader is PID, and that appends a
# line "tick N pid P ..." to a status file about ten times a second. All of it
# works with and without "set -e".

# start PID STATUS COMMAND...: starts a program that will be process PID, alone
# in its session, and returns as soon as it runs. Give each program its own
# PID, well above what the guest hands out itself: the checkpoint needs it free
# again wherever it is restored.
start() {
	_pid=$1 _status=$2
	shift 2
	rm -f "$_status"
	# Steps keep counting where they were, so the program's numbers stay free.
	_last=$(cat /proc/sys/kernel/ns_last_pid)
	echo $((_pid - 1)) >/proc/sys/kernel/ns_last_pid
	setsid "$@" </dev/null >/dev/null 2>&1 &
	_got=$!
	# Its threads and children come right behind it; then it ticks.
	until [ -s "$_status" ]; do
		alive "$_got" || { echo "start: $1 ended at once" >&2; return 1; }
		sleep 0.1
	done
	echo "$_last" >/proc/sys/kernel/ns_last_pid
	[ "$_got" = "$_pid" ] || { echo "start: $1 is process $_got, not $_pid" >&2; return 1; }
}

# alive PID: whether there is such a process and it is not a zombie.
alive() {
	case $(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null) in
	'' | Z* | X*) return 1 ;;
	esac
}

# await N STATUS PID...: waits until each of the processes has written N more
# lines, then prints the last line of each. Fails if one of them is gone; its
# last line, if any, is printed all the same.
await() {
	_n=$1 _status=$2
	shift 2
	_from=$(($(cat "$_status" 2>/dev/null | wc -l) + 1))
	_rc=0
	for _p; do
		while [ "$(tail -n +$_from "$_status" 2>/dev/null | grep -c " pid $_p ")" -lt "$_n" ]; do
			alive "$_p" || { echo "await: process $_p is gone" >&2; _rc=1; break; }
			sleep 0.1
		done
	done
	for _p; do
		tail -n +$_from "$_status" 2>/dev/null | grep " pid $_p " | tail -n 1
	done
	return $_rc
}

# dump PID DIR [OPTION...]: has CRIU checkpoint the program into DIR, which ends
# it. Its log is DIR/dump.log.
dump() {
	_pid=$1 _dir=$2
	shift 2
	mkdir -p "$_dir"
	_rc=0
	criu dump -t "$_pid" -D "$_dir" -o dump.log -v4 "$@" || _rc=$?
	[ $_rc = 0 ] || { grep Error "$_dir/dump.log" >&2; return $_rc; }
	while alive "$_pid"; do sleep 0.1; done # CRIU has killed it; the reaper may lag
}

# restore DIR LOG [OPTION...]: has CRIU restore the checkpoint in DIR, with its
# log in the file LOG.
restore() {
	_dir=$1 _log=$2
	shift 2
	# CRIU wants a log inside of its working directory, and writes there.
	_work=$(mktemp -d)
	_rc=0
	criu restore -d -D "$_dir" -W "$_work" -o restore.log -v4 "$@" || _rc=$?
	mv "$_work/restore.log" "$_log" && rm -rf "$_work"
	[ $_rc = 0 ] || { grep Error "$_log" >&2; return $_rc; }
}

# stop PID: ends the program and waits until all of its processes are gone.
stop() {
	kill -9 "-$1" 2>/dev/null || return 0 # nothing left
	while kill -0 "-$1" 2>/dev/null; do sleep 0.1; done
}
