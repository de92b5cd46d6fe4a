# What the steps of a guest with podman share.

# setup readies the guest for podman, and builds the image of the test program. A
# checkpoint names its image by id, so that must be the same in every guest:
# hence the fixed time.
setup() {
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
	mkdir -p /dev/shm /var/tmp /etc/containers
	mount -t tmpfs shm /dev/shm
	echo '{"default": [{"type": "insecureAcceptAnything"}]}' >/etc/containers/policy.json
	cat >/etc/containers/storage.conf <<-.
		[storage]
		driver = "vfs"
		graphroot = "/var/lib/containers/storage"
		runroot = "/run/containers/storage"
	.
	cat >/etc/containers/containers.conf <<-.
		[engine]
		cgroup_manager = "cgroupfs"
		events_logger = "file"
		runtime = "runc"
	.
	podman build -q --timestamp 0 -t fpuhold /job/fpuhold >/dev/null
}

# await NAME [N]: waits until the program in the container has written N more lines, or
# three, and prints the last. Fails if that takes a minute or the program is gone, and if
# the lines are not numbered throughout: the program is the one that was started, and so
# is its file.
await() {
	_status=$(podman mount "$1")/status
	_pid=$(podman inspect --format '{{.State.Pid}}' "$1")
	_to=$(($(cat "$_status" 2>/dev/null | wc -l) + ${2:-3}))
	_tries=600
	until [ "$(cat "$_status" 2>/dev/null | wc -l)" -ge $_to ]; do
		_tries=$((_tries - 1))
		[ $_tries -gt 0 ] || { echo "await: the program in $1 is silent" >&2; return 1; }
		[ -d "/proc/$_pid/fd" ] || { echo "await: the program in $1 is gone" >&2; return 1; }
		sleep 0.1
	done
	awk '$2 != NR { print "await: line " NR ": " $0; exit 1 }' "$_status" >&2 || return 1
	tail -n 1 "$_status"
}

# restore N ARCHIVE LINES: has podman restore a container, tells the program to go on, and
# notes in files of $OUT that begin with N: its exit status (restored), what was said against it (err), whether
# the program goes on for so many lines (awaited, 0 if so), and its last one (status).
restore() {
	podman container restore --import "$2" --name "restored-$1" >/dev/null 2>"$OUT/$1.err"
	_rc=$?
	echo $_rc >"$OUT/$1.restored"
	if [ $_rc = 0 ]; then
		touch "$(podman mount "restored-$1")/go"
		await "restored-$1" "$3" >"$OUT/$1.status" 2>>"$OUT/$1.err"
		echo $? >"$OUT/$1.awaited"
	else
		# Podman names CRIU's log.
		grep Error $(sed -n 's/^log file: //p' "$OUT/$1.err") >>"$OUT/$1.err" </dev/null
		echo $_rc >"$OUT/$1.awaited"
	fi
}
